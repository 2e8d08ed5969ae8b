"""The one path of a classification: every door calls it, and it knows none of them.

request → checked → admitted → version → pipeline → the best classes → response
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import uuid

from convoy.v1 import classifier_pb2 as pb
from server.admission import Admission
from server.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InternalError,
    MalformedRequest,
    ModelNotReady,
    ServingError,
)
from server.metrics import Metrics
from server.pipeline import Outcome, Pipeline, best_classes
from server.registry import Registry, Servable

logger = logging.getLogger(__name__)

DEFAULT_TOP_K = 5
LONGEST_REQUEST_ID = 128


class Classifier:
    def __init__(
        self, registry: Registry, pipeline: Pipeline, admission: Admission, metrics: Metrics
    ) -> None:
        self._registry = registry
        self._pipeline = pipeline
        self._admission = admission
        self._metrics = metrics

    async def classify(
        self, request: pb.ClassifyRequest, timeout_s: float | None = None
    ) -> pb.ClassifyResponse:
        """Answers one request within timeout_s, and counts and logs it, however it ends.

        Raises:
            ServingError: what was wrong, and nothing else.
        """
        arrived_s = time.monotonic()
        if not request.request_id:
            request.request_id = uuid.uuid4().hex
        try:
            check(request)
            with self._admission.request():
                response = await self._answer(request, arrived_s, timeout_s)
        except ServingError as error:
            self._log_refusal(request, error, arrived_s)
            raise
        except asyncio.CancelledError:
            logger.info("the client went away", extra=access(request, "CANCELLED", arrived_s))
            raise
        except Exception as fault:
            logger.exception("a fault of the gateway", extra={"request_id": request.request_id})
            internal = InternalError("the gateway failed; its log has the reason")
            self._log_refusal(request, internal, arrived_s)
            raise internal from fault
        self._metrics.answered(response)
        logger.info("classified", extra=access(request, "OK", arrived_s, response))
        return response

    async def _answer(
        self, request: pb.ClassifyRequest, arrived_s: float, timeout_s: float | None
    ) -> pb.ClassifyResponse:
        deadline_s = None if timeout_s is None else arrived_s + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                servable, outcome = await self._run(request, deadline_s)
        except TimeoutError as error:
            raise DeadlineExceeded(f"no answer within {timeout_s:.3f} s") from error
        return response_to(request, servable, outcome, arrived_s)

    async def _run(
        self, request: pb.ClassifyRequest, deadline_s: float | None
    ) -> tuple[Servable, Outcome]:
        """A version let go between two steps is no fault of the client: resolve again, once."""
        servable = await self._registry.find(request.model, request.version)
        content = request.image.content
        try:
            return servable, await self._infer(servable, content, deadline_s)
        except ModelNotReady:
            self._registry.note_loss(servable)
            servable = await self._registry.find(request.model, request.version)
            return servable, await self._infer(servable, content, deadline_s)

    async def _infer(self, servable: Servable, content: bytes, deadline_s: float | None) -> Outcome:
        return await self._pipeline.run(servable.folder, servable.loaded, content, deadline_s)

    def _log_refusal(
        self, request: pb.ClassifyRequest, error: ServingError, arrived_s: float
    ) -> None:
        # An unknown name is the client's to choose, so it must not become a label.
        model = request.model if self._registry.knows(request.model) else ""
        self._metrics.refused(model, error.reason)
        logger.info("%s", error.message, extra=access(request, error.reason, arrived_s))


def check(request: pb.ClassifyRequest) -> None:
    """What can be said of a request without looking at its image.

    Raises:
        MalformedRequest: a field is missing or out of its range.
    """
    if not request.model:
        raise MalformedRequest("model is empty; name one, such as lenet5", field="model")
    if not request.HasField("image"):
        raise MalformedRequest("image is missing; its content is a file's bytes", field="image")
    if request.HasField("top_k") and request.top_k < 1:
        raise MalformedRequest(f"top_k is {request.top_k}, must be at least 1", field="top_k")
    if request.HasField("min_score") and not 0 <= request.min_score <= 1:
        raise MalformedRequest(
            f"min_score is {request.min_score:g}, must lie between 0 and 1", field="min_score"
        )
    if len(request.request_id) > LONGEST_REQUEST_ID or not request.request_id.isprintable():
        request.request_id = ""
        raise MalformedRequest(
            f"request_id must be at most {LONGEST_REQUEST_ID} printable characters",
            field="request_id",
        )


def response_to(
    request: pb.ClassifyRequest, servable: Servable, outcome: Outcome, arrived_s: float
) -> pb.ClassifyResponse:
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
            total_us=int((time.monotonic() - arrived_s) * 1e6),
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
    request: pb.ClassifyRequest,
    outcome: str,
    arrived_s: float,
    response: pb.ClassifyResponse | None = None,
) -> dict[str, object]:
    """The fields of the one line that each request leaves in the log."""
    fields: dict[str, object] = {
        "request_id": request.request_id,
        "model": request.model,
        "outcome": outcome,
        "image_bytes": len(request.image.content),
        "total_ms": round((time.monotonic() - arrived_s) * 1e3, 2),
    }
    if response:
        timing = response.timing
        fields |= {
            "version": response.version,
            "batch_size": response.served.batch_size,
            "decode_ms": timing.decode_us / 1e3,
            "preprocess_ms": timing.preprocess_us / 1e3,
            "infer_ms": timing.infer_us / 1e3,
        }
    return fields
