"""How much work the gateway holds at once; it refuses more, and says when to retry.

The images in flight and the bytes of their requests are bounded. A request whose deadline cannot be
met is refused at once, because its answer would come too late. Which deadlines can be met is
measured: how long each answer took, shared among the images in flight when its request came.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from types import TracebackType

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

    def hold(self, images: int) -> int:
        """The place of the last of these images in the queue."""
        self.in_flight += images
        return self.in_flight

    def release(self, images: int) -> None:
        self.in_flight -= images

    def learn(self, place: int, took_s: float, timeout_s: float | None, outcome: object) -> None:
        """From a request that ended; the outcome is the type of its exception, or None."""
        is_late = timeout_s is not None and took_s > GIVEN_UP_SHARE * timeout_s
        if is_late or outcome is asyncio.CancelledError:
            self._given_up(took_s / place)
        elif outcome is None:  # a failed one may not have waited for its turn
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

    def request(self, images: Mapping[str, int], timeout_s: float | None = None) -> Admitted:
        """The context that holds the images of one request, counted by model.

        Raises:
            ShuttingDown: the gateway accepts nothing new.
            Overloaded: it holds too much, or cannot answer within timeout_s.
        """
        if self.is_draining:
            raise ShuttingDown(
                "the gateway is shutting down: try another one, or again in a moment"
            )
        self._check_room(sum(images.values()))
        self._check_deadline(images, timeout_s)
        return Admitted(self, images, timeout_s)

    def estimator(self, model: str) -> LatencyEstimator:
        return self._estimators[model]

    def note_arrival(self) -> None:
        self._idle.clear()

    def note_end(self) -> None:
        if not self.in_flight:
            self._idle.set()

    def further(self, model: str, images: int, timeout_s: float | None) -> Admitted:
        """The context that holds more images of a request that is held already. A draining gateway
        finishes it.

        Raises:
            Overloaded: the gateway holds too much.
        """
        self._check_room(images)
        return Admitted(self, {model: images}, timeout_s)

    def drain(self) -> None:
        self.is_draining = True

    async def drained(self) -> None:
        """Returns when nothing is in flight."""
        await self._idle.wait()

    def _check_room(self, count: int) -> None:
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


class Admitted:
    """Holds the images of one request, and learns from its end.

    A class, since a generator with one more for each model costs four times as much.
    """

    def __init__(
        self, admission: Admission, images: Mapping[str, int], timeout_s: float | None
    ) -> None:
        self._admission = admission
        self._images = images
        self._timeout_s = timeout_s
        self._places: list[int] = []  # of each model
        self._since_s = 0.0

    def __enter__(self) -> None:
        self._admission.note_arrival()
        self._since_s = time.monotonic()
        self._places = [self._admission.estimator(name).hold(n) for name, n in self._images.items()]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        took_s = time.monotonic() - self._since_s
        for (name, n), place in zip(self._images.items(), self._places, strict=True):
            estimator = self._admission.estimator(name)
            estimator.release(n)
            estimator.learn(place, took_s, self._timeout_s, kind)
        self._admission.note_end()
