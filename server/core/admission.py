"""How much work the gateway holds at once: beyond that it refuses, and says for how long.

Bounded are the images in flight and the bytes of their requests. A request whose deadline cannot be
met is refused at the door: the work would be done for nobody. What can be met is measured: how long
each answer took, shared among the images that were in flight when its request came.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from server.errors import Overloaded, ShuttingDown

SMOOTHING = 0.1  # share of the newest measurement in the moving averages
# With fewer in flight the gateway has slack, and its answers do not show how fast it could be.
BUSY_IMAGES = 4
# Under overload the queue grows until the next in it would just be in time, and half of them are
# not: as TCP does for its time-outs, we allow for how far single answers lie from the mean.
DEVIATIONS = 2.0
# What took this share of its deadline was given up, or nearly so. It would have taken longer;
# nobody knows how much, and too little would let in as many again.
GIVEN_UP_SHARE = 0.99
GIVEN_UP_TIMES = 2.0
UNMEASURED_RETRY_S = 1.0


class LatencyEstimator:
    """How long an image of one model keeps those behind it waiting."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._each_s: float | None = None  # None: never busy yet
        self._deviation_s = 0.0  # mean distance of what single requests showed from each_s

    def wait_s(self, images: int = 0) -> float:
        """Until all that is in flight, and as many images more, are answered; 0: nothing is."""
        if self._each_s is None or not self.in_flight:
            return 0.0
        return (self.in_flight + images) * (self._each_s + DEVIATIONS * self._deviation_s)

    @contextmanager
    def held(self, images: int, timeout_s: float | None) -> Iterator[None]:
        """Holds the images of one request, and learns from how it ends."""
        self.in_flight += images
        place, since_s = self.in_flight, time.monotonic()
        is_answered = is_cancelled = False
        try:
            yield
            is_answered = True
        except asyncio.CancelledError:
            is_cancelled = True
            raise
        finally:
            self.in_flight -= images
            took_s = time.monotonic() - since_s
            is_late = timeout_s is not None and took_s > GIVEN_UP_SHARE * timeout_s
            if is_late or is_cancelled:
                self._given_up(took_s / place)
            elif is_answered:  # what fails may not have waited for its turn
                self._answered(took_s / place, is_busy=place >= BUSY_IMAGES)

    def _answered(self, each_s: float, *, is_busy: bool) -> None:
        if is_busy or (self._each_s is not None and each_s < self._each_s):
            self._learn(each_s)

    def _given_up(self, each_s: float) -> None:
        least_s = GIVEN_UP_TIMES * each_s
        if self._each_s is None or least_s > self._each_s:
            self._learn(least_s)

    def _learn(self, newest_s: float) -> None:
        before_s = newest_s if self._each_s is None else self._each_s
        off_s = newest_s - before_s
        self._each_s = before_s + SMOOTHING * off_s
        self._deviation_s += SMOOTHING * (abs(off_s) - self._deviation_s)


class ByteReservation:
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
        self._paces: dict[str, LatencyEstimator] = defaultdict(LatencyEstimator)  # by model
        self.in_flight_bytes = 0

    @property
    def in_flight(self) -> int:
        return sum(pace.in_flight for pace in self._paces.values())

    @contextmanager
    def body(self) -> Iterator[ByteReservation]:
        """Holds what is added to it until the request is answered."""
        body = ByteReservation(self)
        try:
            yield body
        finally:
            self.in_flight_bytes -= body.n_bytes

    def hold(self, n_bytes: int) -> None:
        if self.in_flight_bytes + n_bytes > self._max_in_flight_bytes:
            raise Overloaded(
                f"the requests in flight have {self.in_flight_bytes} bytes, and at most "
                f"{self._max_in_flight_bytes} are held",
                retry_after_s=self._until_all_are_answered_s(),
            )
        self.in_flight_bytes += n_bytes

    @contextmanager
    def request(self, images: Mapping[str, int], timeout_s: float | None = None) -> Iterator[None]:
        """Holds the images of one request, so many of each model.

        Raises:
            ShuttingDown: the gateway takes nothing new.
            Overloaded: it holds as much as it may, or cannot answer within timeout_s.
        """
        self._check_room(sum(images.values()))
        self._check_deadline(images, timeout_s)
        self._idle.clear()
        try:
            with ExitStack() as held:
                for name, n in images.items():
                    held.enter_context(self._paces[name].held(n, timeout_s))
                yield
        finally:
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
                retry_after_s=self._until_all_are_answered_s(),
            )

    def _check_deadline(self, images: Mapping[str, int], timeout_s: float | None) -> None:
        for name, n in images.items():
            wait_s = self._paces[name].wait_s(n)
            if timeout_s is not None and wait_s > timeout_s:
                raise Overloaded(
                    f"the answer may take {wait_s:.3f} s, and the deadline is in {timeout_s:.3f} s",
                    retry_after_s=wait_s - timeout_s,
                )

    def _until_all_are_answered_s(self) -> float:
        waits_s = [pace.wait_s() for pace in self._paces.values()]
        return max(waits_s, default=0.0) or UNMEASURED_RETRY_S
