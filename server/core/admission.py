"""How much work the gateway holds at once; it refuses more, and says when to retry.

The images in flight and the bytes of their requests are bounded. A request whose deadline cannot be
met is refused at once, because its answer would come too late. Which deadlines can be met is
measured: how long each answer took, shared among the images in flight when its request came.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from server.errors import ImageTooLarge, Overloaded, ShuttingDown

SMOOTHING = 0.1  # share of the newest measurement in the moving averages
# With fewer in flight the gateway has slack, and its answers do not show how fast it could be.
BUSY_IMAGES = 4
# Under overload the queue grows until the next request would be just in time, and half of them are
# late. As TCP does for its time-outs, we allow for the deviation of single answers from the mean.
DEVIATIONS = 2.0
# A request that took this share of its deadline was given up, or nearly so. It would have taken
# longer, by an unknown time; too low an estimate would admit as many again.
GIVEN_UP_SHARE = 0.99
GIVEN_UP_TIMES = 2.0
UNMEASURED_RETRY_S = 1.0


class LatencyEstimator:
    """How long an image of one model keeps those behind it waiting: its service time."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._service_s: float | None = None  # per image; None: never busy yet
        self._deviation_s = 0.0  # mean distance of single requests from it

    def wait_s(self, images: int = 0) -> float:
        """Seconds until all in flight, and as many images more, are answered; 0 if none are."""
        if self._service_s is None or not self.in_flight:
            return 0.0
        return (self.in_flight + images) * (self._service_s + DEVIATIONS * self._deviation_s)

    @contextmanager
    def held(self, images: int, timeout_s: float | None) -> Iterator[None]:
        """Holds the images of one request, and learns from its end."""
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
            elif is_answered:  # a failed one may not have waited for its turn
                self._answered(took_s / place, is_busy=place >= BUSY_IMAGES)

    def _answered(self, service_s: float, *, is_busy: bool) -> None:
        if is_busy or (self._service_s is not None and service_s < self._service_s):
            self._learn(service_s)

    def _given_up(self, service_s: float) -> None:
        at_least_s = GIVEN_UP_TIMES * service_s
        if self._service_s is None or at_least_s > self._service_s:
            self._learn(at_least_s)

    def _learn(self, newest_s: float) -> None:
        before_s = newest_s if self._service_s is None else self._service_s
        error_s = newest_s - before_s
        self._service_s = before_s + SMOOTHING * error_s
        self._deviation_s += SMOOTHING * (abs(error_s) - self._deviation_s)


class ByteReservation:
    """The bytes that one call holds, which grow while its message arrives."""

    def __init__(self, admission: Admission, max_bytes: int) -> None:
        self._admission = admission
        self._max_bytes = max_bytes
        self.n_bytes = 0

    def check_size(self, n_bytes: int) -> None:
        """
        Raises:
            ImageTooLarge: the message of a call may not have so many bytes.
        """
        if n_bytes > self._max_bytes:
            raise ImageTooLarge(f"the request has more than {self._max_bytes} bytes, the limit")

    def add(self, n_bytes: int) -> None:
        """
        Raises:
            Overloaded: with these the gateway would hold too many.
        """
        self._admission.hold(n_bytes)
        self.n_bytes += n_bytes

    def release(self) -> None:
        self._admission.in_flight_bytes -= self.n_bytes
        self.n_bytes = 0


class Admission:
    def __init__(self, max_in_flight: int, max_in_flight_bytes: int) -> None:
        self._max_in_flight = max_in_flight
        self._max_in_flight_bytes = max_in_flight_bytes
        self.is_draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._estimators: dict[str, LatencyEstimator] = defaultdict(LatencyEstimator)  # by model
        self.in_flight_bytes = 0

    @property
    def in_flight(self) -> int:
        return sum(estimator.in_flight for estimator in self._estimators.values())

    def reserve(self, max_bytes: int) -> ByteReservation:
        """For one call, whose message has at most `max_bytes`; to be released at its end."""
        return ByteReservation(self, max_bytes)

    def hold(self, n_bytes: int) -> None:
        if self.in_flight_bytes + n_bytes > self._max_in_flight_bytes:
            raise Overloaded(
                f"too many bytes in flight ({self.in_flight_bytes} of at most "
                f"{self._max_in_flight_bytes} bytes)",
                retry_after_s=self._drain_time_s(),
            )
        self.in_flight_bytes += n_bytes

    @contextmanager
    def request(self, images: Mapping[str, int], timeout_s: float | None = None) -> Iterator[None]:
        """Holds the images of one request, counted by model.

        Raises:
            ShuttingDown: the gateway accepts nothing new.
            Overloaded: it holds too much, or cannot answer within timeout_s.
        """
        self._check_room(sum(images.values()))
        self._check_deadline(images, timeout_s)
        self._idle.clear()
        try:
            with ExitStack() as held:
                for name, n in images.items():
                    held.enter_context(self._estimators[name].held(n, timeout_s))
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
            raise ShuttingDown(
                "the gateway is shutting down: try another one, or again in a moment"
            )
        if self.in_flight + count > self._max_in_flight:
            raise Overloaded(
                f"too many images in flight ({self.in_flight} of at most {self._max_in_flight})",
                retry_after_s=self._drain_time_s(),
            )

    def _check_deadline(self, images: Mapping[str, int], timeout_s: float | None) -> None:
        for name, n in images.items():
            wait_s = self._estimators[name].wait_s(n)
            if timeout_s is not None and wait_s > timeout_s:
                raise Overloaded(
                    f"the answer may take {wait_s:.3f} s, but the deadline is in {timeout_s:.3f} s",
                    retry_after_s=wait_s - timeout_s,
                )

    def _drain_time_s(self) -> float:
        waits_s = [estimator.wait_s() for estimator in self._estimators.values()]
        return max(waits_s, default=0.0) or UNMEASURED_RETRY_S
