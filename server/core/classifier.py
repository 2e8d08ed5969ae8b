"""The one path of a classification: every door calls it, and it knows none of them.

request → admitted → checked → version → pixels → probabilities → the best classes → response

Several requests in one call walk side by side, and each ends for itself: in a response or in an
error. Those of a batch are all prepared before the first is inferred, so that they go through the
network together where the runner can.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from convoy.v1 import classifier_pb2 as pb
from server.core.admission import Admission
from server.core.keys import Keys, client_name
from server.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InternalError,
    MalformedRequest,
    ModelNotReady,
    RunnerUnavailable,
    ServingError,
)
from server.observability import tracing
from server.observability.metrics import Metrics
from server.pipeline import Outcome, Pipeline, PreparedImage, best_classes
from server.versions.manager import Servable
from server.versions.pool import Pool

logger = logging.getLogger(__name__)

DEFAULT_TOP_K = 5
MAX_REQUEST_ID_LENGTH = 128
# Requests of one stream that are worked on side by side; the next is read when the first is done.
STREAM_WINDOW = 16


@dataclass
class Call:
    """One request on its way, and what became of it so far."""

    request: pb.ClassifyRequest
    deadline_s: float | None = None  # on the clock of time.monotonic()
    content: bytes = field(init=False)  # of the image, read once: each reading copies it
    arrived_s: float = field(default_factory=time.monotonic)
    servable: Servable | None = None
    prepared: PreparedImage | None = None
    result: pb.ClassifyResponse | ServingError | None = None

    def __post_init__(self) -> None:
        self.request.request_id = self.request.request_id or new_id()
        self.content = self.request.image.content

    @contextlib.asynccontextmanager
    async def within_its_deadline(self) -> AsyncIterator[None]:
        left_s = None if self.deadline_s is None else self.deadline_s - time.monotonic()
        try:
            async with asyncio.timeout(left_s):
                yield
        except TimeoutError as error:
            assert self.deadline_s is not None
            given_s = self.deadline_s - self.arrived_s
            raise DeadlineExceeded(f"no answer within {given_s:.3f} s") from error


@dataclass(frozen=True)
class Item:
    """What became of one request of several."""

    request_id: str
    result: pb.ClassifyResponse | ServingError


class Classifier:
    def __init__(
        self,
        pool: Pool,
        pipeline: Pipeline,
        admission: Admission,
        metrics: Metrics,
        *,
        keys: Keys | None,
        max_batch_requests: int,
    ) -> None:
        self._pool = pool
        self._pipeline = pipeline
        self._admission = admission
        self._metrics = metrics
        self._keys = keys
        self._max_batch_requests = max_batch_requests

    async def classify(
        self, request: pb.ClassifyRequest, timeout_s: float | None = None
    ) -> pb.ClassifyResponse:
        """Answers one request within timeout_s, and counts and logs it, however it ends.

        Raises:
            ServingError: what was wrong, and nothing else.
        """
        call = Call(request, deadline_after(timeout_s))
        with (
            tracing.span("classify", model=request.model),
            self._accounting(call),
            self._admitted([request], timeout_s),
        ):
            async with call.within_its_deadline():
                await self._prepare(call)
                return await self._infer(call)

    async def classify_batch(
        self, requests: Sequence[pb.ClassifyRequest], timeout_s: float | None = None
    ) -> list[Item]:
        """Answers each request of a batch, in their order.

        Raises:
            MalformedRequest: there are none, or too many.
            ShuttingDown, Overloaded: the batch as a whole is refused.
        """
        calls = [Call(request, deadline_after(timeout_s)) for request in requests]
        with tracing.span("classify_batch", requests=len(calls)):
            try:
                self._check_size(calls)
                with self._admitted(requests, timeout_s):
                    for call in calls[1:]:  # the door has charged for one
                        await self._take(call, self._charge)
                    for step in (self._prepare, self._infer):
                        await asyncio.gather(*(self._take(call, step) for call in calls))
            except ServingError as error:
                for call in calls:
                    self._log_refusal(call, error)
                raise
            except asyncio.CancelledError:  # between its steps, nothing else notices it of a call
                for call in calls:
                    if call.result is None:
                        self._log_departure(call)
                raise
        return [item_of(call) for call in calls]

    async def classify_stream(
        self, requests: AsyncIterator[pb.ClassifyRequest], timeout_s: float | None = None
    ) -> AsyncGenerator[Item, None]:
        """Answers requests as they come, in their order, several at a time.

        When it is closed or cancelled, what is under way is given up.
        """
        deadline_s = deadline_after(timeout_s)
        under_way: asyncio.Queue[asyncio.Task[Item] | None] = asyncio.Queue(STREAM_WINDOW)

        async def read() -> None:
            try:
                async for request in requests:
                    answering = self._classify_item(request, deadline_s)
                    await under_way.put(asyncio.create_task(answering))
            except Exception:
                await under_way.put(None)
                raise
            await under_way.put(None)

        reader = asyncio.create_task(read())
        item: asyncio.Task[Item] | None = None
        try:
            while item := await under_way.get():
                yield await item
            await reader
        finally:
            left = [reader, item, *(under_way.get_nowait() for _ in range(under_way.qsize()))]
            await give_up([task for task in left if task])

    # ------------------------------------------------------------ the steps of one request

    async def _classify_item(self, request: pb.ClassifyRequest, deadline_s: float | None) -> Item:
        request.request_id = request.request_id or new_id()
        timeout_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
        try:
            if self._keys:
                self._keys.charge(client_name.get())
            with self._admission.body() as body:
                body.add(len(request.image.content))
                response = await self.classify(request, timeout_s)
        except ServingError as error:
            return Item(request.request_id, error)
        return Item(request.request_id, response)

    async def _take(self, call: Call, step: Callable[[Call], Awaitable[object]]) -> None:
        """One step of a request that does not fail its neighbours."""
        if call.result is not None:
            return
        try:
            with self._refusals_accounted(call):
                async with call.within_its_deadline():
                    await step(call)
        except ServingError as error:
            call.result = error

    async def _charge(self, call: Call) -> None:
        if self._keys:
            self._keys.charge(client_name.get())

    async def _prepare(self, call: Call) -> None:
        check(call.request)
        if self._keys:
            self._keys.require(client_name.get(), call.request.model)
        call.servable = await self._pool.find(call.request.model, call.request.version)
        facts = call.servable.loaded.facts
        with tracing.span("prepare", model=call.servable.model):
            call.prepared = await self._pipeline.prepare(call.content, facts.preprocessing)

    async def _infer(self, call: Call) -> pb.ClassifyResponse:
        """A version let go between two steps, or a runner lost, is no fault of the client: ask
        again, once.
        """
        assert call.servable
        try:
            outcome = await self._outcome(call)
        except RunnerUnavailable as error:
            other = self._pool.failover(call.servable, error.message)
            if other is None:
                raise
            call.servable = other
            outcome = await self._outcome(call)
        except ModelNotReady:
            self._pool.note_loss(call.servable)
            await self._prepare(call)
            outcome = await self._outcome(call)
        response = response_to(call, outcome)
        call.result = response
        self._metrics.answered(response, len(call.content))
        logger.info("classified", extra=access(call, "OK", response))
        return response

    async def _outcome(self, call: Call) -> Outcome:
        assert call.servable and call.prepared
        servable = call.servable
        with tracing.span("infer", model=servable.model, version=servable.version) as step:
            outcome = await self._pipeline.infer(
                servable.runner, servable.folder, call.prepared, call.deadline_s
            )
            step.note(batch_size=outcome.inference.batch_size)
        return outcome

    # ------------------------------------------------------------ what goes around them

    def arriving(
        self, model: str = "", request_id: str = ""
    ) -> contextlib.AbstractContextManager[None]:
        """Around what a door does before it has a request: those refusals count as well."""
        return self._accounting(Call(pb.ClassifyRequest(model=model, request_id=request_id)))

    def _admitted(
        self, requests: Sequence[pb.ClassifyRequest], timeout_s: float | None
    ) -> contextlib.AbstractContextManager[None]:
        # An unknown name is the client's to choose, so nothing is kept under it.
        names = (each.model if self._pool.has_model(each.model) else "" for each in requests)
        return self._admission.request(Counter(names), timeout_s)

    def _check_size(self, calls: Sequence[Call]) -> None:
        if not 1 <= len(calls) <= self._max_batch_requests:
            raise MalformedRequest(
                f"the batch has {len(calls)} requests, must be 1 to {self._max_batch_requests}",
                field="requests",
            )

    @contextlib.contextmanager
    def _accounting(self, call: Call) -> Iterator[None]:
        """Counts and logs a request that fails, and lets nothing but a ServingError out."""
        try:
            with self._refusals_accounted(call):
                yield
        except asyncio.CancelledError:
            self._log_departure(call)
            raise

    @contextlib.contextmanager
    def _refusals_accounted(self, call: Call) -> Iterator[None]:
        try:
            yield
        except ServingError as error:
            self._log_refusal(call, error)
            raise
        except Exception as fault:
            logger.exception(
                "a fault of the gateway", extra={"request_id": call.request.request_id}
            )
            internal = InternalError("the gateway failed; its log has the reason")
            self._log_refusal(call, internal)
            raise internal from fault

    def _log_departure(self, call: Call) -> None:
        self._refuse(call, "CANCELLED")
        logger.info("the client went away", extra=access(call, "CANCELLED"))

    def _log_refusal(self, call: Call, error: ServingError) -> None:
        self._refuse(call, error.reason)
        logger.info("%s", error.message, extra=access(call, error.reason))

    def _refuse(self, call: Call, reason: str) -> None:
        # An unknown name is the client's to choose, so it must not become a label.
        name = call.request.model if self._pool.has_model(call.request.model) else ""
        self._metrics.refused(name, reason, len(call.content))


def new_id() -> str:
    return uuid.uuid4().hex


def deadline_after(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s


def item_of(call: Call) -> Item:
    assert call.result is not None
    return Item(call.request.request_id, call.result)


async def give_up(tasks: Sequence[asyncio.Task[Item] | asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def check(request: pb.ClassifyRequest) -> None:
    """What can be said of a request without looking at its image.

    Raises:
        MalformedRequest: a field is missing or out of its range.
    """
    if not request.model:
        raise MalformedRequest("model is empty; name one, such as lenet5", field="model")
    if not request.HasField("image"):
        raise MalformedRequest("image is missing; its content is a file's bytes", field="image")
    check_options(request)


def check_options(request: pb.ClassifyRequest) -> None:
    """
    Raises:
        MalformedRequest: an option is out of its range.
    """
    if request.HasField("top_k") and request.top_k < 1:
        raise MalformedRequest(f"top_k is {request.top_k}, must be at least 1", field="top_k")
    if request.HasField("min_score") and not 0 <= request.min_score <= 1:
        raise MalformedRequest(
            f"min_score is {request.min_score:g}, must lie between 0 and 1", field="min_score"
        )
    if len(request.request_id) > MAX_REQUEST_ID_LENGTH or not request.request_id.isprintable():
        request.request_id = new_id()
        raise MalformedRequest(
            f"request_id must be at most {MAX_REQUEST_ID_LENGTH} printable characters",
            field="request_id",
        )


def response_to(call: Call, outcome: Outcome) -> pb.ClassifyResponse:
    assert call.servable
    request, servable = call.request, call.servable
    loaded, prepared, inference = servable.loaded, outcome.prepared, outcome.inference
    facts, image = loaded.facts, prepared.image
    if not math.isfinite(outcome.probabilities.sum()):
        raise InferenceFailed(f"{servable.folder} answered scores that are not numbers")
    top_k = request.top_k if request.HasField("top_k") else DEFAULT_TOP_K
    classes = best_classes(outcome.probabilities, facts.labels, top_k)
    return pb.ClassifyResponse(
        classes=[found for found in classes if found.score >= request.min_score],
        model=servable.model,
        version=servable.version,
        served=pb.Served(
            runtime=loaded.runtime,
            precision=facts.manifest.precision,
            device=loaded.device,
            weights=facts.manifest.weights.source,
            manifest_digest=facts.manifest_digest,
            batch_size=inference.batch_size,
        ),
        timing=pb.Timing(
            decode_us=prepared.decode_us,
            preprocess_us=prepared.preprocess_us,
            infer_us=outcome.infer_us,
            total_us=int((time.monotonic() - call.arrived_s) * 1e6),
            queue_us=inference.queue_us,
            compute_us=inference.compute_us,
        ),
        image=pb.ImageFacts(
            width=image.width,
            height=image.height,
            format=image.format,
            exif_applied=image.exif_applied,
        ),
        request_id=request.request_id,
    )


def access(
    call: Call, outcome: str, response: pb.ClassifyResponse | None = None
) -> dict[str, object]:
    """The fields of the one line that each request leaves in the log."""
    request = call.request
    fields: dict[str, object] = {
        "request_id": request.request_id,
        "client": client_name.get(),
        "door": tracing.door(),
        "trace_id": tracing.trace_id(),
        "model": request.model,
        "outcome": outcome,
        "image_bytes": len(call.content),
        "total_ms": round((time.monotonic() - call.arrived_s) * 1e3, 2),
    }
    if response:
        timing = response.timing
        fields |= {
            "version": response.version,
            "batch_size": response.served.batch_size,
            "image": f"{response.image.format} {response.image.width}x{response.image.height}",
            "decode_ms": timing.decode_us / 1e3,
            "preprocess_ms": timing.preprocess_us / 1e3,
            "infer_ms": timing.infer_us / 1e3,
        }
        if timing.HasField("queue_us"):
            fields["queue_ms"] = timing.queue_us / 1e3
    return {name: value for name, value in fields.items() if value != ""}
