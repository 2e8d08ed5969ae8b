"""How long work reports how far it is, without knowing who watches."""

from __future__ import annotations


class Reporter:
    """Reports nothing: for tests and programs. `console.ProgressBars` draws."""

    def step(self, name: str) -> None:
        """The next step begins."""

    def progress(self, task: str, completed: int, total: int | None, unit: str = "") -> None:
        """A task within the step: `completed` of `total` (None where nobody knows it yet).

        May be called from any thread. `unit` is "bytes", "pictures" if their rate is of interest,
        or empty for what is counted.
        """


SILENT = Reporter()
