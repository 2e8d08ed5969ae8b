"""How much work the gateway holds at once; it refuses more, and says when to retry.

The images in flight and the bytes of their requests are bounded. A request whose deadline cannot be
met is refused at once, because its answer would come too late. Which deadlines can be met is
measured: how long each answer took, shared among the images in flight when its request came.

What one client costs is that client's. Its own images' preparation teaches nothing about how long
others wait, and of the room that is left a client may take as much as it has already: so one key
alone fills half of the gateway, two fill a third each, and another always finds some.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NamedTuple

from server.core.clock import RunningClock
from server.core.ledger import Ledger
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

# Sizes of work: images of up to 64 KiB, and of four times as much for each further one.
SMALL_BITS = 16
BITS_PER_SIZE = 2
PASSES = -1  # the size of work that is no image, but passes of the network


class Work(NamedTuple):
    """What is measured alike."""

    model: str
    size: int = 0

    @classmethod
    def of(cls, model: str, n_bytes: int) -> Work:
        """An image of so many bytes."""
        return cls(model, -(-max(0, n_bytes.bit_length() - SMALL_BITS) // BITS_PER_SIZE))


class LatencyEstimator:
    """How long an image of one kind keeps those behind it waiting: its service time."""

    def __init__(self) -> None:
        self._service_s: float | None = None  # per image; None: never busy yet
        self._deviation_s = 0.0  # mean distance of single requests from it

    @property
    def allowed_s(self) -> float | None:
        """Per image, with allowance for deviation; None: not measured yet."""
        if self._service_s is None:
            return None
        return self._service_s + DEVIATIONS * self._deviation_s

    def learn(self, place: int, took_s: float, timeout_s: float | None, outcome: object) -> None:
        """From a request that ended; the outcome is the type of its exception, or None."""
        if timeout_s is not None and took_s > GIVEN_UP_SHARE * timeout_s:
            self._given_up(GIVEN_UP_TIMES * took_s / place)
        elif outcome is asyncio.CancelledError:  # its client went away, for reasons of its own
            self._given_up(took_s / place)
        elif outcome is None:  # a failed one may not have waited for its turn
            self._answered(took_s / place, is_busy=place >= BUSY_IMAGES)

    def _answered(self, service_s: float, *, is_busy: bool) -> None:
        if is_busy or (self._service_s is not None and service_s < self._service_s):
            self._learn(service_s)

    def _given_up(self, at_least_s: float) -> None:
        if self._service_s is None or at_least_s > self._service_s:
            self._learn(at_least_s)

    def _learn(self, newest_s: float) -> None:
        before_s = newest_s if self._service_s is None else self._service_s
        error_s = newest_s - before_s
        self._service_s = before_s + SMOOTHING * error_s
        self._deviation_s += SMOOTHING * (abs(error_s) - self._deviation_s)


class ModelQueue:
    """The images in flight of one model."""

    def __init__(self) -> None:
        self.in_flight: Counter[str] = Counter()  # by client
        self.estimators: dict[int, LatencyEstimator] = defaultdict(LatencyEstimator)  # by size

    def hold(self, client: str, images: int) -> int:
        """The place of the last of these images in the queue."""
        self.in_flight[client] += images
        return self.in_flight.total()

    def release(self, client: str, images: int) -> None:
        self.in_flight[client] -= images
        if not self.in_flight[client]:
            del self.in_flight[client]

    def wait_s(self, images: int, size: int | None = None) -> float:
        """Seconds until all in flight, and as many images more, are answered; 0 if none are.

        A size that was not measured is taken to be like the quickest; None is the slowest.
        """
        measured = {key: each.allowed_s for key, each in self.estimators.items()}
        known = [seconds for seconds in measured.values() if seconds is not None]
        if not known or not self.in_flight:
            return 0.0
        allowed_s = max(known) if size is None else measured.get(size)
        return (self.in_flight.total() + images) * (allowed_s or min(known))


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
        self._admission.let_go(self.n_bytes)
        self.n_bytes = 0


class Admission:
    """The bounds hold for all workers together; what is measured is this one's."""

    def __init__(
        self, max_in_flight: int, max_in_flight_bytes: int, ledger: Ledger | None = None
    ) -> None:
        self._ledger = ledger  # None: there are no other workers
        self._max_in_flight = max_in_flight
        self._max_in_flight_bytes = max_in_flight_bytes
        self.clock = RunningClock()
        self.is_draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._queues: dict[str, ModelQueue] = defaultdict(ModelQueue)  # by model
        self._in_flight_for = Counter[str]()  # images by client
        self.in_flight = 0
        self.in_flight_bytes = 0

    def reserve(self, max_bytes: int) -> ByteReservation:
        """For one call, whose message has at most `max_bytes`; to be released at its end."""
        return ByteReservation(self, max_bytes)

    def hold(self, n_bytes: int) -> None:
        in_flight_bytes = self.in_flight_bytes
        if self._ledger:
            in_flight_bytes += self._ledger.others_bytes()
        if in_flight_bytes + n_bytes > self._max_in_flight_bytes:
            raise Overloaded(
                f"too many bytes in flight ({in_flight_bytes} of at most "
                f"{self._max_in_flight_bytes} bytes)",
                retry_after_s=self._drain_time_s(),
            )
        self._add_bytes(n_bytes)

    def let_go(self, n_bytes: int) -> None:
        self._add_bytes(-n_bytes)

    def _add_bytes(self, n_bytes: int) -> None:
        self.in_flight_bytes += n_bytes
        if self._ledger:
            self._ledger.hold_bytes(self.in_flight_bytes)

    def request(
        self,
        images: Mapping[Work, int],
        timeout_s: float | None = None,
        *,
        client: str = "",
        own_s: Callable[[], float] = float,
    ) -> Admitted:
        """The context that holds the images of one request, counted by kind of work.

        `own_s` gives the seconds that the preparation of these images has taken. Without keys,
        clients are not told apart: all are "".

        Raises:
            ShuttingDown: the gateway accepts nothing new.
            Overloaded: it holds too much, or cannot answer within timeout_s.
        """
        if self.is_draining:
            raise ShuttingDown(
                "the gateway is shutting down: try another one, or again in a moment"
            )
        self._check_room(sum(images.values()), client)
        self._check_deadline(images, timeout_s, client)
        return Admitted(self, images, timeout_s, client, own_s)

    def queue(self, model: str) -> ModelQueue:
        return self._queues[model]

    def note_arrival(self, client: str, images: int) -> None:
        self._idle.clear()
        self._count(client, images)

    def note_end(self, client: str, images: int) -> None:
        self._count(client, -images)
        if not self.in_flight:
            self._idle.set()

    def further(
        self, model: str, passes: int, timeout_s: float | None, client: str = ""
    ) -> Admitted:
        """The context that holds more passes for a request that is held already. A draining gateway
        finishes it.

        Raises:
            Overloaded: the gateway holds too much.
        """
        self._check_room(passes, client)
        return Admitted(self, {Work(model, PASSES): passes}, timeout_s, client, float)

    def drain(self) -> None:
        self.is_draining = True

    async def drained(self) -> None:
        """Returns when nothing is in flight."""
        await self._idle.wait()

    def _check_room(self, count: int, client: str) -> None:
        in_flight, own = self.in_flight, self._in_flight_for[client] if client else 0
        if self._ledger:
            in_flight += self._ledger.others_images()
            own += self._ledger.others_images_for(client) if client else 0
        if in_flight + own + count > self._max_in_flight:
            yours = f"; {own} are yours, and others need room" if own else ""
            raise Overloaded(
                f"too many images in flight ({in_flight} of at most {self._max_in_flight}{yours})",
                retry_after_s=self._drain_time_s(),
            )

    def _check_deadline(
        self, images: Mapping[Work, int], timeout_s: float | None, client: str
    ) -> None:
        if timeout_s is None:
            return
        by_model: Counter[str] = Counter()
        for work, n in images.items():
            by_model[work.model] += n
        for work in images:
            queue = self._queues[work.model]
            own = queue.in_flight[client] if client else 0
            wait_s = queue.wait_s(by_model[work.model] + own, work.size)
            if wait_s > timeout_s:
                others = ", with room for others" if own else ""
                raise Overloaded(
                    f"the answer may take {wait_s:.3f} s{others}, "
                    f"but the deadline is in {timeout_s:.3f} s",
                    retry_after_s=wait_s - timeout_s,
                )

    def _count(self, client: str, images: int) -> None:
        self.in_flight += images
        own = self._in_flight_for[client] = self._in_flight_for[client] + images
        if not own:
            del self._in_flight_for[client]
        if self._ledger:  # shows the other workers what is in flight here
            self._ledger.hold_images(self.in_flight)
            if client:
                self._ledger.hold_images_for(client, own)

    def _drain_time_s(self) -> float:
        waits_s = [queue.wait_s(0) for queue in self._queues.values()]
        return max(waits_s, default=0.0) or UNMEASURED_RETRY_S


class Admitted:
    """Holds the images of one request, and learns from its end.

    A class, since a generator with one more for each model costs four times as much.
    """

    def __init__(
        self,
        admission: Admission,
        images: Mapping[Work, int],
        timeout_s: float | None,
        client: str,
        own_s: Callable[[], float],
    ) -> None:
        self._admission = admission
        self._images = images
        self._count = sum(images.values())
        self._timeout_s = timeout_s
        self._client = client
        self._own_s = own_s
        self._places: list[int] = []  # of each kind of work
        self._since_s = 0.0

    def __enter__(self) -> None:
        admission = self._admission
        self._since_s = admission.clock.now_s()
        self._places = [
            admission.queue(work.model).hold(self._client, n) for work, n in self._images.items()
        ]
        admission.note_arrival(self._client, self._count)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        admission = self._admission
        took_s = max(0.0, admission.clock.now_s() - self._since_s - self._own_s())
        for (work, n), place in zip(self._images.items(), self._places, strict=True):
            queue = admission.queue(work.model)
            queue.release(self._client, n)
            queue.estimators[work.size].learn(place, took_s, self._timeout_s, kind)
        admission.note_end(self._client, self._count)
