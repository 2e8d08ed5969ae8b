"""A clock that stands while the process does."""

from __future__ import annotations

import asyncio
import time

TICK_S = 0.1
# A longer time between two ticks is a pause: the process was stopped, or the machine asleep.
PAUSE_S = 0.5


class RunningClock:
    """Seconds that the process has been running. What waits while it is stopped is not slow."""

    def __init__(self) -> None:
        self._ticked_s: float | None = None
        self._paused_s = 0.0

    def now_s(self) -> float:
        now_s = time.monotonic()
        if self._ticked_s is None:  # it does not tick
            return now_s
        return self._ticked_s + min(now_s - self._ticked_s, PAUSE_S) - self._paused_s

    def tick(self) -> None:
        now_s = time.monotonic()
        if self._ticked_s is not None:
            self._paused_s += max(0.0, now_s - self._ticked_s - PAUSE_S)
        self._ticked_s = now_s

    async def run(self) -> None:
        """Ticks until it is cancelled."""
        while True:
            self.tick()
            await asyncio.sleep(TICK_S)
