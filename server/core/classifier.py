"""The one path of a classification, for every transport.

request → admitted → checked → version → pixels → probabilities → the best classes → response

The images of a batch go side by side, and each ends for itself: in a response or in an error. All
are prepared before the first is inferred, so that they go through the network together where the
runner can do that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from convoy.v1 import classifier_pb2 as pb
from server.core.admission import Admission, Work
from server.core.call import Call, RequestedImage
from server.core.keys import Keys
from server.core.responses import to_response
from server.core.validation import check_request
from server.errors import InternalError, ModelNotReady, RunnerUnavailable, ServingError
from server.evidence.messages import to_evidence
from server.evidence.occlusion import occlude
from server.evidence.outputs import check_available, needed_outputs, needs_occlusion
from server.observability import tracing
from server.pipeline import Outcome, Pipeline
from server.versions.pool import Pool

logger = logging.getLogger(__name__)


class Classifier:
    """Classifies the images of calls; `Service` counts and logs how they end."""

    def __init__(
        self, pool: Pool, pipeline: Pipeline, admission: Admission, keys: Keys | None
    ) -> None:
        self._pool = pool
        self._pipeline = pipeline
        self._admission = admission
        self._keys = keys

    async def classify(self, call: Call, request: pb.ClassifyRequest) -> pb.ClassifyResponse:
        """Answers one image within the call's deadline.

        Raises:
            ServingError: the request, the runner or the gateway failed.
        """
        image = call.add(request, call.request_id)
        call.model, call.request_id = request.model, image.request_id
        with call.traced("classify", model=request.model), self._admitted(call):
            async with call.within_deadline():
                await self._prepare(call, image)
                return await self._infer(call, image)

    async def classify_batch(
        self, call: Call, requests: Sequence[pb.ClassifyRequest]
    ) -> Sequence[RequestedImage]:
        """Answers each image of a batch, in their order; each ends with a result of its own.

        Raises:
            ShuttingDown, Overloaded: the batch as a whole is refused.
        """
        for index, request in enumerate(requests):
            call.add(request, f"{call.request_id}-{index}")
        images = call.images
        with call.traced("classify_batch", requests=len(images)), self._admitted(call):
            for image in images[1:]:  # the transport has charged for one
                await self._attempt(self._charge, call, image)
            for step in (self._prepare, self._infer):
                await asyncio.gather(*(self._attempt(step, call, image) for image in images))
        return images

    # ------------------------------------------------------------ the steps of one image

    async def _attempt(
        self,
        step: Callable[[Call, RequestedImage], Awaitable[object]],
        call: Call,
        image: RequestedImage,
    ) -> None:
        """One step of an image that does not fail its neighbours."""
        if image.result is not None:
            return
        try:
            async with call.within_deadline():
                await step(call, image)
        except ServingError as error:
            image.end(error)
        except Exception as error:
            image.end(internal_error(error, image.request_id))

    async def _charge(self, call: Call, image: RequestedImage) -> None:
        if self._keys:
            self._keys.charge(call.client, call.key_sha256)

    async def _prepare(self, call: Call, image: RequestedImage) -> None:
        request = image.request
        check_request(request)
        if self._keys:
            self._keys.require(call.client, call.key_sha256, request.model)
        image.servable = await self._pool.find(request.model, request.version)
        facts = image.servable.loaded.facts
        check_available(request.include, facts, image.servable.folder)
        with tracing.span("prepare", model=image.servable.model):
            image.prepared = await self._pipeline.prepare(
                image.content, facts.preprocessing, image.preparation
            )

    async def _infer(self, call: Call, image: RequestedImage) -> pb.ClassifyResponse:
        """A version unloaded between two steps, or a lost runner, is no fault of the client: it is
        tried again, once.
        """
        assert image.servable
        try:
            outcome = await self._outcome(call, image)
        except RunnerUnavailable as error:
            other = self._pool.failover(image.servable, error.message)
            if other is None:
                raise
            image.servable = other
            outcome = await self._outcome(call, image)
        except ModelNotReady:
            self._pool.note_loss(image.servable)
            await self._prepare(call, image)
            outcome = await self._outcome(call, image)
        response = to_response(image, outcome)
        if image.request.include:
            await self._add_evidence(image, outcome, response)
        image.end(response)
        return response

    async def _outcome(self, call: Call, image: RequestedImage) -> Outcome:
        assert image.servable and image.prepared
        servable, include = image.servable, image.request.include
        evidence = servable.loaded.facts.evidence
        with tracing.span("infer", model=servable.model, version=servable.version) as span:
            outcome = await self._pipeline.infer(
                servable.runner,
                servable.folder,
                image.prepared,
                call.deadline_s,
                needed_outputs(include, evidence),
            )
            span.note(batch_size=outcome.inference.batch_size)
        if needs_occlusion(include, evidence):
            return await self._occlude(call, image, outcome)
        return outcome

    async def _occlude(self, call: Call, image: RequestedImage, outcome: Outcome) -> Outcome:
        """Adds the passes of a heat-map, which count as images in flight."""
        assert image.servable
        servable = image.servable
        passes = servable.loaded.facts.evidence.heatmap_passes - 1
        with (
            self._admission.further(servable.model, passes, call.remaining_s(), call.client),
            tracing.span("occlude", model=servable.model, version=servable.version, passes=passes),
        ):
            started_s = time.monotonic()
            covered = await occlude(
                servable.runner,
                servable.folder,
                servable.loaded,
                outcome.prepared.pixels,
                outcome.infer_us / 1e6,
                call.deadline_s,
            )
        infer_us = outcome.infer_us + int((time.monotonic() - started_s) * 1e6)
        return replace(outcome, covered=covered, infer_us=infer_us)

    async def _add_evidence(
        self, image: RequestedImage, outcome: Outcome, response: pb.ClassifyResponse
    ) -> None:
        assert image.servable
        evidence = await asyncio.to_thread(  # a PNG takes milliseconds
            to_evidence,
            image.request.include,
            image.servable.loaded.facts,
            outcome,
            response.classes,
        )
        response.MergeFrom(evidence)

    def _admitted(self, call: Call) -> contextlib.AbstractContextManager[None]:
        images: dict[Work, int] = {}
        for image in call.images:
            work = Work.of(self.known_name(image.request.model), len(image.content))
            images[work] = images.get(work, 0) + 1
        return self._admission.request(
            images, call.remaining_s(), client=call.client, own_s=call.preparation_s
        )

    def known_name(self, model: str) -> str:
        """Clients choose unknown names freely, so nothing is kept or counted under one."""
        return model if self._pool.has_model(model) else ""


def internal_error(error: BaseException, request_id: str) -> InternalError:
    """Logs what went wrong in the gateway itself, and what its client reads of it."""
    logger.error("internal error", exc_info=error, extra={"request_id": request_id})
    return InternalError("internal error of the gateway; its log has the reason")
