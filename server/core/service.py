"""The receiving end for every transport: it accounts for calls and passes them on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Sequence,
)
from types import TracebackType
from typing import Any

from convoy.v1 import classifier_pb2 as pb
from server.core.admission import Admission
from server.core.bounds import Bounds
from server.core.call import Call, RequestedImage
from server.core.classifier import Classifier, internal_error
from server.core.keys import Keys, Strangers
from server.core.ledger import Ledger
from server.core.responses import batch_fields, call_fields, classification_fields
from server.core.rpc_status import to_item_result
from server.core.validation import check_batch_size
from server.errors import AuthRequired, ClientLeft, ServingError, Unimplemented
from server.observability.metrics import Metrics
from server.pipeline import Pipeline
from server.settings import Settings
from server.tasks import cancel_and_wait
from server.versions.pool import Pool

logger = logging.getLogger(__name__)

OK = "OK"  # the outcome of what was answered

# Requests of one stream that are worked on side by side; the next is read when the first is done.
STREAM_WINDOW = 16


# For what is so of all workers, by its path; None: there is no supervisor, or it does not answer.
AskSupervisor = Callable[[str], Awaitable[Any]]


async def no_supervisor(path: str) -> None:
    return None


class Service:
    """What every transport holds: it begins calls here, and hands their messages on.

    Raises:
        StartFailed: the keys cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        pool: Pool,
        pipeline: Pipeline,
        metrics: Metrics,
        ledger: Ledger | None = None,
        ask_supervisor: AskSupervisor = no_supervisor,
    ) -> None:
        self.pool = pool
        self.admission = Admission(settings.max_in_flight, settings.max_in_flight_bytes, ledger)
        self.metrics = metrics
        self.keys = Keys(settings.api_keys, ledger) if settings.api_keys else None
        self._strangers = Strangers(ledger)
        self.ask_supervisor = ask_supervisor
        self._settings = settings
        self._classifier = Classifier(pool, pipeline, self.admission, self.keys)
        self._bounds = Bounds.for_batches(settings.max_batch_requests)
        self._is_leaving = False

    # ------------------------------------------------------------ readiness

    def is_ready(self) -> bool:
        return not self._is_leaving and self.pool.is_ready()

    def leave(self) -> None:
        """From now on it is not ready. It answers until `admission` drains."""
        self._is_leaving = True

    # ------------------------------------------------------------ calls

    def begin(self, transport: str, path: str) -> Call:
        reservation = self.admission.reserve(self._settings.max_request_bytes)
        return Call(transport, path, reservation, self._bounds)

    def receive(self, call: Call, answered: tuple[type[Exception], ...] = ()) -> Receiving:
        """Around all that is done for a call: counts, logs and releases, however it ends.

        Only ServingError, Unimplemented, ClientLeft and CancelledError come out of it, and the
        transport's own `answered`, which say that the client has its answer.
        """
        return Receiving(self, call, answered)

    def authenticate(self, call: Call, authorization: str | None) -> None:
        """
        Raises:
            AuthRequired, RateLimited: the key is not valid, or was used too often.
        """
        if self.keys:
            key = self.keys.check(authorization)
            call.client, call.key_sha256 = key.name, key.entry.sha256

    def charge_stranger(self, host: str) -> None:
        """For what needs no key and costs more than its refusal.

        Raises:
            RateLimited: the host asked too often; never where no keys are needed.
        """
        if self.keys:
            self._strangers.charge(host)

    def classify(
        self, call: Call, request: pb.ClassifyRequest
    ) -> Coroutine[Any, Any, pb.ClassifyResponse]:
        """As `Classifier.classify`."""
        return self._classifier.classify(call, request)

    def classify_batch(
        self, call: Call, requests: Sequence[pb.ClassifyRequest]
    ) -> Coroutine[Any, Any, Sequence[RequestedImage]]:
        """As `Classifier.classify_batch`.

        Raises:
            MalformedRequest: there are no requests, or too many.
        """
        check_batch_size(len(requests), self._settings.max_batch_requests)
        return self._classifier.classify_batch(call, requests)

    async def classify_stream(
        self, call: Call, messages: AsyncIterator[bytes]
    ) -> AsyncGenerator[pb.ItemResult, None]:
        """Answers the raw requests of a stream as they come, in their order, several at a time.

        When it is closed or cancelled, what is under way is given up.
        """
        under_way: asyncio.Queue[asyncio.Task[pb.ItemResult] | None] = asyncio.Queue(STREAM_WINDOW)

        async def read() -> None:
            try:
                async for raw in messages:
                    await under_way.put(asyncio.create_task(self._classify_message(call, raw)))
            except Exception:
                await under_way.put(None)
                raise
            await under_way.put(None)

        reader = asyncio.create_task(read())
        item: asyncio.Task[pb.ItemResult] | None = None
        try:
            while item := await under_way.get():
                yield await item
            await reader
        finally:
            waiting = [under_way.get_nowait() for _ in range(under_way.qsize())]
            await cancel_and_wait(*(task for task in (reader, item, *waiting) if task))

    async def _classify_message(self, stream: Call, raw: bytes) -> pb.ItemResult:
        call = self.next_message(stream)
        try:
            with self.receive(call):
                call.hold(raw)
                self.charge(call)
                request = call.read(raw, pb.ClassifyRequest)
                response = await self._classifier.classify(call, request)
        except AuthRequired:  # the key was withdrawn or replaced: the stream ends
            raise
        except ServingError as error:
            return to_item_result(call.request_id, error)
        return to_item_result(call.request_id, response)

    def next_message(self, stream: Call) -> Call:
        return stream.next_message(self.admission.reserve(self._settings.max_request_bytes))

    def charge(self, call: Call) -> None:
        """For each message of a stream, whose headers came with one key.

        Raises:
            AuthRequired, RateLimited: the key is not valid any more, or was used too often.
        """
        if self.keys:
            self.keys.charge(call.client, call.key_sha256)

    # ------------------------------------------------------------ accounting

    def account(self, call: Call, outcome: str, message: str) -> None:
        """One count for each image, and one line in the log, whatever the call held."""
        images = call.images
        if len(images) == 1:
            reason, text = self._count(call, images[0], outcome, message)
            logger.info("%s", text, extra=classification_fields(call, images[0], reason))
        elif images:
            self._account_batch(call, outcome, message)
        # The messages of a stream are accounted for already.
        elif outcome and not (outcome == "CANCELLED" and call.has_messages):
            self._log_early_failure(call, outcome, message)

    def _account_batch(self, call: Call, outcome: str, message: str) -> None:
        ends = [self._count(call, image, outcome, message) for image in call.images]
        failures = [(reason, text) for reason, text in ends if reason != OK]
        reason, text = failures[0] if failures else ends[0]
        if failures:
            text = f"{len(failures)} of {len(ends)} images failed; the first: {text}"
        logger.info("%s", text, extra=batch_fields(call, reason, len(failures)))

    def _count(
        self, call: Call, image: RequestedImage, outcome: str, message: str
    ) -> tuple[str, str]:
        """Returns its outcome and its message; without a result, those of its call."""
        result = image.result
        if isinstance(result, pb.ClassifyResponse):
            self.metrics.answered(call.transport, result, len(image.content))
            return OK, "classified"
        if isinstance(result, ServingError):
            outcome, message = result.reason, result.message
        name = self._classifier.known_name(image.request.model)
        self.metrics.refused(call.transport, name, outcome, len(image.content))
        return outcome, message

    def _log_early_failure(self, call: Call, reason: str, message: str) -> None:
        if not call.is_traced:
            with call.traced("receive") as span:
                span.fail(reason)
        self.metrics.refused(call.transport, self._classifier.known_name(call.model), reason)
        logger.info("%s", message, extra=call_fields(call, reason))


class Receiving:
    """The context of one call. A class: a generator would be one more frame of each traceback."""

    def __init__(self, service: Service, call: Call, answered: tuple[type[Exception], ...]) -> None:
        self._service = service
        self._call = call
        self._answered = answered

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        call = self._call
        call.reservation.release()
        if error is None or isinstance(error, self._answered):
            self._service.account(call, "", "")
        elif isinstance(error, ServingError):
            self._service.account(call, error.reason, error.message)
        elif isinstance(error, Unimplemented):
            self._service.account(call, "UNIMPLEMENTED", error.message)
        elif isinstance(error, Exception) and not isinstance(error, ClientLeft):
            internal = internal_error(error, call.request_id)
            self._service.account(call, internal.reason, internal.message)
            raise internal from error
        else:
            self._service.account(call, "CANCELLED", "the client went away")
