"""How much work the gateway holds at once: beyond that it refuses, and says for how long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from server.errors import Overloaded, ShuttingDown

DRAIN_SMOOTHING = 0.1  # share of the newest measurement in the drain rate's moving average


class Admission:
    def __init__(self, max_in_flight: int) -> None:
        self._max_in_flight = max_in_flight
        self.is_draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._seconds_each = 0.1  # between two answers while requests are held; moving average
        self._last_answer_s = time.monotonic()
        self.in_flight = 0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Holds one request.

        Raises:
            ShuttingDown: the gateway takes nothing new.
            Overloaded: it holds as much as it may.
        """
        if self.is_draining:
            raise ShuttingDown("the gateway is shutting down: ask another, or again in a moment")
        if self.in_flight >= self._max_in_flight:
            raise Overloaded(
                f"{self.in_flight} requests are in flight, the most that the gateway holds",
                retry_after_s=self.in_flight * self._seconds_each,
            )
        self._enter()
        try:
            yield
        finally:
            self._leave()

    def drain(self) -> None:
        self.is_draining = True

    async def drained(self) -> None:
        """Returns when nothing is in flight."""
        await self._idle.wait()

    def _enter(self) -> None:
        if not self.in_flight:
            self._last_answer_s = time.monotonic()
        self.in_flight += 1
        self._idle.clear()

    def _leave(self) -> None:
        now_s = time.monotonic()
        newest_s = now_s - self._last_answer_s
        self._seconds_each += DRAIN_SMOOTHING * (newest_s - self._seconds_each)
        self._last_answer_s = now_s
        self.in_flight -= 1
        if not self.in_flight:
            self._idle.set()
