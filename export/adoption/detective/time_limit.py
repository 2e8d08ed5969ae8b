"""The time that a search may take, whatever it is given to search."""

from __future__ import annotations

import time

from export.progress import Reporter


class OutOfTime(Exception):
    """What is not tried yet is not tried any more."""


class TimeLimit:
    """Each part of the work has a share of what the parts before it have left over."""

    def __init__(self, limit_s: float, reporter: Reporter) -> None:
        self._start_s = time.monotonic()
        self._end_s = self._deadline_s = self._start_s + limit_s
        self._reporter = reporter

    def begin_part(self, share: float) -> None:
        """The next part may take this share, 0 to 1, of the time that is left."""
        now_s = time.monotonic()
        self._deadline_s = now_s + share * max(0.0, self._end_s - now_s)

    def check(self) -> None:
        """
        Raises:
            OutOfTime: the part has had its time.
        """
        now_s = time.monotonic()
        elapsed_s, limit_s = now_s - self._start_s, self._end_s - self._start_s
        self._reporter.progress("seconds, at most", round(elapsed_s), round(limit_s))
        if now_s >= self._deadline_s:
            raise OutOfTime
