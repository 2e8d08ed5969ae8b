"""The table that a walk over the catalog ends in."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = [
        value
        for report in terminalreporter.stats.get("passed", [])
        for key, value in report.user_properties
        if key == "walk"
    ]
    if rows:
        terminalreporter.section(
            "networks: largest difference of the rung of its precision, seconds"
        )
        for name, precision, difference, seconds in sorted(rows):
            terminalreporter.line(f"{name:18} {precision}  passed  {difference}  {seconds:>4} s")
