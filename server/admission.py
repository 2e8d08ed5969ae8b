"""How much work the gateway holds at once: beyond that it refuses, and says for how long.

Bounded are the images in flight and the bytes of their requests. A request whose deadline cannot be
met is refused at the door: the work would be done for nobody. What can be met is measured: while
several images of a model wait, the time from one answer to the next is what each one costs.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from server.errors import Overloaded, ShuttingDown

SMOOTHING = 0.1  # share of the newest measurement in the moving average
# With fewer in flight the gateway has slack, and its answers do not show how fast it could be.
BUSY_IMAGES = 4
UNMEASURED_RETRY_S = 1.0


class DrainRate:
    """What each image costs while several wait: of one model, or of all."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.seconds_each: float | None = None  # None: never busy yet
        self._since_s = 0.0  # the last answer, or when it became busy

    def enter(self, images: int) -> None:
        if self.in_flight < BUSY_IMAGES:
            self._since_s = time.monotonic()
        self.in_flight += images

    def leave(self, images: int) -> None:
        now_s = time.monotonic()
        if self.in_flight >= BUSY_IMAGES:
            newest_s = (now_s - self._since_s) / images
            before_s = newest_s if self.seconds_each is None else self.seconds_each
            self.seconds_each = before_s + SMOOTHING * (newest_s - before_s)
        self._since_s = now_s
        self.in_flight -= images

    def wait_s(self, images: int = 0) -> float:
        """Until all that waits, and as many images more, are answered; 0 where nothing waits."""
        if self.in_flight < BUSY_IMAGES or self.seconds_each is None:
            return 0.0
        return (self.in_flight + images) * self.seconds_each


class Body:
    """The bytes that one request holds; they grow while it arrives."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.n_bytes = 0

    def add(self, n_bytes: int) -> None:
        """
        Raises:
            Overloaded: with them the gateway would hold more than it may.
        """
        self._admission.hold(n_bytes)
        self.n_bytes += n_bytes


class Admission:
    def __init__(self, max_in_flight: int, max_in_flight_bytes: int) -> None:
        self._max_in_flight = max_in_flight
        self._max_in_flight_bytes = max_in_flight_bytes
        self.is_draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._all = DrainRate()
        self._by_model: dict[str, DrainRate] = defaultdict(DrainRate)
        self.in_flight_bytes = 0

    @property
    def in_flight(self) -> int:
        return self._all.in_flight

    @contextmanager
    def body(self) -> Iterator[Body]:
        """Holds what is added to it until the request is answered."""
        body = Body(self)
        try:
            yield body
        finally:
            self.in_flight_bytes -= body.n_bytes

    def hold(self, n_bytes: int) -> None:
        if self.in_flight_bytes + n_bytes > self._max_in_flight_bytes:
            raise Overloaded(
                f"the requests in flight have {self.in_flight_bytes} bytes, and at most "
                f"{self._max_in_flight_bytes} are held",
                retry_after_s=self._all.wait_s() or UNMEASURED_RETRY_S,
            )
        self.in_flight_bytes += n_bytes

    @contextmanager
    def request(self, images: Mapping[str, int], timeout_s: float | None = None) -> Iterator[None]:
        """Holds the images of one request, so many of each model.

        Raises:
            ShuttingDown: the gateway takes nothing new.
            Overloaded: it holds as much as it may, or cannot answer within timeout_s.
        """
        count = sum(images.values())
        self._check_room(count)
        self._check_deadline(images, timeout_s)
        rates = [(self._all, count), *((self._by_model[name], n) for name, n in images.items())]
        for rate, n in rates:
            rate.enter(n)
        self._idle.clear()
        try:
            yield
        finally:
            for rate, n in rates:
                rate.leave(n)
            if not self.in_flight:
                self._idle.set()

    def drain(self) -> None:
        self.is_draining = True

    async def drained(self) -> None:
        """Returns when nothing is in flight."""
        await self._idle.wait()

    def _check_room(self, count: int) -> None:
        if self.is_draining:
            raise ShuttingDown("the gateway is shutting down: ask another, or again in a moment")
        if self.in_flight + count > self._max_in_flight:
            raise Overloaded(
                f"{self.in_flight} images are in flight, and at most {self._max_in_flight} are "
                "held",
                retry_after_s=self._all.wait_s() or UNMEASURED_RETRY_S,
            )

    def _check_deadline(self, images: Mapping[str, int], timeout_s: float | None) -> None:
        for name, n in images.items():
            wait_s = self._by_model[name].wait_s(n)
            if timeout_s is not None and wait_s > timeout_s:
                raise Overloaded(
                    f"the answer would take {wait_s:.3f} s, and the deadline is in "
                    f"{timeout_s:.3f} s",
                    retry_after_s=wait_s - timeout_s,
                )
