"""What leaves a request: its response, and its line in the log."""

from __future__ import annotations

import math
import time

import numpy as np

from convoy.v1 import classifier_pb2 as pb
from server.core.call import Call, RequestedImage
from server.errors import InferenceFailed, cut
from server.evidence.messages import to_unfamiliar
from server.evidence.outputs import UNFAMILIAR
from server.pipeline import Outcome, best_scores
from server.preprocessing.decode import DecodedImage

DEFAULT_TOP_K = 5


def to_response(image: RequestedImage, outcome: Outcome) -> pb.ClassifyResponse:
    """Fills messages in place: each one that is handed over is copied.

    Raises:
        InferenceFailed: the scores are not numbers.
    """
    assert image.servable
    request, servable = image.request, image.servable
    response = pb.ClassifyResponse(
        model=servable.model,
        version=servable.version,
        served=servable.loaded.served,
        request_id=image.request_id,
    )
    response.served.batch_size = outcome.inference.batch_size
    scores = outcome.probabilities
    if not math.isfinite(scores.sum()):
        raise InferenceFailed(f"{servable.folder} returned scores that are not numbers")
    top_k = request.top_k if request.HasField("top_k") else DEFAULT_TOP_K
    labels, min_score = servable.loaded.labels, request.min_score
    thresholds = servable.loaded.thresholds
    if thresholds is not None and not request.HasField("min_score"):
        scores = np.where(scores >= thresholds, scores, np.float32(-1))  # below any min_score
    for index, score in best_scores(scores, top_k):
        if score >= min_score:
            label = labels[index]
            response.classes.add(label=label.name, score=score, index=index, id=label.id)
    fill_image(response.image, outcome.prepared.image)
    fill_timing(response.timing, outcome)
    unfamiliar = outcome.inference.outputs.get(UNFAMILIAR)
    if unfamiliar is not None:
        response.unfamiliar.CopyFrom(to_unfamiliar(servable.loaded.facts.manifest, unfamiliar))
    response.timing.total_us = int((time.monotonic() - image.began_s) * 1e6)
    return response


def fill_image(facts: pb.ImageFacts, image: DecodedImage) -> None:
    facts.width, facts.height, facts.format = image.width, image.height, image.format
    facts.exif_applied = image.exif_applied


def fill_timing(timing: pb.Timing, outcome: Outcome) -> None:
    timing.decode_us = outcome.prepared.decode_us
    timing.preprocess_us = outcome.prepared.preprocess_us
    timing.infer_us = outcome.infer_us
    if outcome.inference.queue_us is not None:
        timing.queue_us = outcome.inference.queue_us
    if outcome.inference.compute_us is not None:
        timing.compute_us = outcome.inference.compute_us


# ---------------------------------------------------------------- the access log


def call_fields(call: Call, outcome: str) -> dict[str, object]:
    """The fields of the line of a call that ended before its message was read."""
    fields = common_fields(call, call.request_id, outcome, time.monotonic() - call.arrived_s)
    fields["path"] = cut(call.path)
    if call.model:
        fields["model"] = cut(call.model)
    return fields


def classification_fields(call: Call, image: RequestedImage, outcome: str) -> dict[str, object]:
    """The fields of the line of a call that has one image."""
    elapsed_s = (image.ended_s or time.monotonic()) - image.began_s
    fields = common_fields(call, image.request_id, outcome, elapsed_s)
    if model := image.request.model:
        fields["model"] = cut(model)
    fields["image_bytes"] = len(image.content)
    if isinstance(image.result, pb.ClassifyResponse):
        add_response(fields, image.result)
    return fields


def batch_fields(call: Call, outcome: str, n_failed: int) -> dict[str, object]:
    """The fields of the line of a call that has several images."""
    images = call.images
    fields = common_fields(call, call.request_id, outcome, time.monotonic() - call.arrived_s)
    if models := ", ".join(sorted({image.request.model for image in images})):
        fields["model"] = cut(models)
    fields["images"], fields["failed"] = len(images), n_failed
    fields["image_bytes"] = sum(len(image.content) for image in images)
    return fields


def common_fields(call: Call, request_id: str, outcome: str, elapsed_s: float) -> dict[str, object]:
    """Those that are empty are left out."""
    fields: dict[str, object] = {"request_id": request_id}
    if call.client:
        fields["client"] = call.client
    fields["door"] = call.transport
    if call.trace_id:
        fields["trace_id"] = call.trace_id
    fields["outcome"] = outcome
    fields["total_ms"] = round(elapsed_s * 1e3, 2)
    return fields


def add_response(fields: dict[str, object], response: pb.ClassifyResponse) -> None:
    timing, image = response.timing, response.image
    fields["version"] = response.version
    fields["batch_size"] = response.served.batch_size
    fields["image"] = f"{image.format} {image.width}x{image.height}"
    fields["decode_ms"] = timing.decode_us / 1e3
    fields["preprocess_ms"] = timing.preprocess_us / 1e3
    fields["infer_ms"] = timing.infer_us / 1e3
    if timing.HasField("queue_us"):
        fields["queue_ms"] = timing.queue_us / 1e3
