"""A reporter that remembers, for the tests of what reports its progress."""

from __future__ import annotations

from export.progress import Reporter


class Recorder(Reporter):
    def __init__(self) -> None:
        self.steps: list[str] = []
        self.reports: list[tuple[str, int, int | None]] = []  # task, completed, total

    def step(self, name: str) -> None:
        self.steps.append(name)

    def progress(self, task: str, completed: int, total: int | None, unit: str = "") -> None:
        self.reports.append((task, completed, total))
