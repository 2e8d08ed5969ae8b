"""One request as an object: what its headers say, what its message says, and how it ended.

A transport begins a `Call` from the headers alone. `Call.read` adds the message. The images that
the message holds become `RequestedImage`s, one each, and `Service.receive` accounts for them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from convoy.v1 import classifier_pb2 as pb
from server.core.admission import ByteReservation
from server.core.bounds import Bounds, check_message, malformed
from server.core.validation import is_request_id
from server.errors import DeadlineExceeded, ServingError
from server.observability import tracing
from server.pipeline import Preparation, PreparedImage
from server.versions.state import Servable

M = TypeVar("M", bound=Message)


NO_DEADLINE = contextlib.nullcontext()


def new_id() -> str:
    """As unique as a random UUID. It is no secret, so that it need not come from the kernel."""
    return f"{random.getrandbits(128):032x}"


@dataclass
class Call:
    """One call of a method, or one message of a stream."""

    transport: str  # "grpc" or "http"
    path: str  # as the wire has it: /v1/models/lenet5:classify, /convoy.v1.ImageClassifier/Classify
    reservation: ByteReservation
    bounds: Bounds
    # The gateway's own, until the headers or the message give one.
    request_id: str = field(default_factory=new_id)
    arrived_s: float = field(default_factory=time.monotonic)
    deadline_s: float | None = None  # on the clock of time.monotonic()
    client: str = ""  # the name of its key; empty where none is required
    key_sha256: str = ""  # of its key: another key of the same name is another one
    trace_id: str = ""
    is_traced: bool = False  # a span of its own has begun
    model: str = ""
    images: list[RequestedImage] = field(default_factory=list)
    has_messages: bool = False  # of a stream, each of which is a call by itself

    def set_timeout(self, timeout_s: float | None) -> None:
        """Counts from the arrival of the headers; where there are several, the shortest holds."""
        if timeout_s is not None:
            deadline_s = self.arrived_s + timeout_s
            self.deadline_s = min(deadline_s, self.deadline_s or deadline_s)

    def remaining_s(self) -> float | None:
        """Seconds until the deadline, at least 0; None without a deadline."""
        return None if self.deadline_s is None else max(0.0, self.deadline_s - time.monotonic())

    def within_deadline(self) -> contextlib.AbstractAsyncContextManager[None]:
        """
        Raises:
            DeadlineExceeded: the block did not end in time.
        """
        return NO_DEADLINE if self.deadline_s is None else self._within(self.deadline_s)

    @contextlib.asynccontextmanager
    async def _within(self, deadline_s: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.remaining_s()):
                yield
        except TimeoutError as error:
            timeout_s = deadline_s - self.arrived_s
            raise DeadlineExceeded(f"no answer within {timeout_s:.3f} s") from error

    def hold(self, raw: bytes) -> None:
        """Reserves the bytes of a message, all of them, until the call ends.

        Raises:
            ImageTooLarge, Overloaded: it is too large, or the gateway holds too much already.
        """
        self.reservation.check_size(len(raw))
        self.reservation.add(len(raw))

    def read(self, raw: bytes, kind: type[M]) -> M:
        """Checks what a message holds, and then parses it.

        Raises:
            MalformedRequest: it holds too much, or the bytes are no message of this kind.
        """
        check_message(raw, kind, self.bounds)
        try:
            return kind.FromString(raw)
        except DecodeError as error:
            raise malformed() from error

    def identify(self, model: str, request_id: str) -> None:
        """Takes over what the message says; an invalid id is reported under the gateway's own."""
        self.model = model
        if is_request_id(request_id):
            self.request_id = request_id

    def traced(
        self, name: str, **facts: str | int
    ) -> contextlib.AbstractContextManager[tracing.Span]:
        """The span of this call, under that of the client."""
        self.is_traced = True
        return self._recorded(name, **facts) if tracing.is_set_up() else tracing.NO_SPAN

    @contextlib.contextmanager
    def _recorded(self, name: str, **facts: str | int) -> Iterator[tracing.Span]:
        with tracing.span(name, request_id=self.request_id, **facts) as span:
            self.trace_id = tracing.trace_id()
            yield span

    def next_message(self, reservation: ByteReservation) -> Call:
        """One message of this stream."""
        self.has_messages = True
        return Call(
            self.transport,
            self.path,
            reservation,
            self.bounds,
            deadline_s=self.deadline_s,
            client=self.client,
            key_sha256=self.key_sha256,
            trace_id=self.trace_id,
        )

    def preparation_s(self) -> float:
        """How long its images have been prepared: those of a batch side by side."""
        return max((image.preparation.took_s() for image in self.images), default=0.0)

    def add(self, request: pb.ClassifyRequest, fallback_id: str) -> RequestedImage:
        image = RequestedImage(
            request,
            request.request_id if is_request_id(request.request_id) else fallback_id,
            request.image.content,
        )
        self.images.append(image)
        return image


@dataclass
class RequestedImage:
    """One image of a call, and how far it has come."""

    request: pb.ClassifyRequest
    request_id: str
    content: bytes  # of the image, read once: each reading copies it
    began_s: float = field(default_factory=time.monotonic)
    servable: Servable | None = None
    preparation: Preparation = field(default_factory=Preparation)
    prepared: PreparedImage | None = None
    result: pb.ClassifyResponse | ServingError | None = None
    ended_s: float = 0.0

    def end(self, result: pb.ClassifyResponse | ServingError) -> None:
        self.result = result
        self.ended_s = time.monotonic()
