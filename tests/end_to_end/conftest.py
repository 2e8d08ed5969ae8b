"""Prints the results of these tests as tables: networks, faults, and endurance."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image


@pytest.fixture(scope="session")
def small_digit(digit: bytes) -> bytes:
    """An image that takes little time to prepare, so that a fault meets many requests."""
    content = io.BytesIO()
    Image.open(io.BytesIO(digit)).resize((32, 32)).save(content, "PNG")
    return content.getvalue()


# By the property of a test that has a row of it.
TABLES = {
    "fault": ("fault", "runner", "requests", "clients saw", "longest call", "serves again"),
    "photograph": ("photograph", "runner", "their answer", "fp32", "fp16", "int8"),
    "adopted": (
        "precision",
        "file",
        "top-1 agrees",
        "scores off by, mean",
        "at most",
        "adopted in",
    ),
}

Note = Callable[..., None]


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Note:
    """Returns a function that adds the outcomes of a load to the table of faults."""

    def put(
        fault: str, runner: str, load: Any, fault_s: float, *, seen: str = "", back: str = ""
    ) -> None:
        seen = seen or ", ".join(sorted(load.seen())) or "nothing"
        back = back or f"{load.back_after_s(fault_s):.1f} s"
        longest = f"{load.longest_s():.1f} s"
        record_property("fault", (fault, runner, str(len(load.outcomes)), seen, longest, back))

    return put


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if walks := collect_rows(terminalreporter, "walk"):
        terminalreporter.section(
            "networks: largest difference of the rung of its precision, seconds"
        )
        for name, precision, difference, seconds in walks:
            terminalreporter.line(f"{name:18} {precision}  passed  {difference}  {seconds:>4} s")
    for table, columns in TABLES.items():
        if rows := collect_rows(terminalreporter, table):
            terminalreporter.section(table)
            terminalreporter.line(f"| {' | '.join(columns)} |")
            terminalreporter.line("|---" * len(columns) + "|")
            for cells in rows:
                terminalreporter.line(f"| {' | '.join(cells)} |")
    if endurance := collect_rows(terminalreporter, "endurance"):
        terminalreporter.section(
            "memory of the gateway: after a quarter of the requests, and growth"
        )
        for requests, runner, early_bytes, grown_bytes in endurance:
            early_mb, grown_mb = early_bytes / 1e6, grown_bytes / 1e6
            terminalreporter.line(f"{requests} {runner} {early_mb:.1f} MB {grown_mb:+.1f} MB")


def collect_rows(terminalreporter: pytest.TerminalReporter, table: str) -> list[Any]:
    return sorted(
        value
        for report in terminalreporter.stats.get("passed", [])
        for key, value in report.user_properties
        if key == table
    )
