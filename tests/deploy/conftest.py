"""Prints what the tests on real engines measured, as a table at the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Measured = Callable[[str, object], None]


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Measured:
    """Returns a function that adds a figure and its description to the table."""

    def put(what: str, figure: object) -> None:
        record_property("container", (what, figure))

    return put


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = [
        row
        for report in terminalreporter.stats.get("passed", [])
        for name, row in report.user_properties
        if name == "container"
    ]
    if rows:
        terminalreporter.section("containers")
        for what, figure in rows:
            terminalreporter.write_line(f"{what:<40}  {figure}")
