"""What leaves a request: its response, and its line in the log."""

from __future__ import annotations

import math
import time

from convoy.v1 import classifier_pb2 as pb
from server.core.call import Call, Classification
from server.errors import InferenceFailed, ServingError, cut
from server.pipeline import Outcome, best_classes

DEFAULT_TOP_K = 5


def to_response(classification: Classification, outcome: Outcome) -> pb.ClassifyResponse:
    """
    Raises:
        InferenceFailed: the scores are not numbers.
    """
    assert classification.servable
    request, servable = classification.request, classification.servable
    loaded, prepared, inference = servable.loaded, outcome.prepared, outcome.inference
    image = prepared.image
    if not math.isfinite(outcome.probabilities.sum()):
        raise InferenceFailed(f"{servable.folder} returned scores that are not numbers")
    top_k = request.top_k if request.HasField("top_k") else DEFAULT_TOP_K
    best = best_classes(outcome.probabilities, loaded.labels, top_k)
    response = pb.ClassifyResponse(
        classes=[candidate for candidate in best if candidate.score >= request.min_score],
        model=servable.model,
        version=servable.version,
        served=loaded.served,
        timing=pb.Timing(
            decode_us=prepared.decode_us,
            preprocess_us=prepared.preprocess_us,
            infer_us=outcome.infer_us,
            total_us=int((time.monotonic() - classification.began_s) * 1e6),
            queue_us=inference.queue_us,
            compute_us=inference.compute_us,
        ),
        image=pb.ImageFacts(
            width=image.width,
            height=image.height,
            format=image.format,
            exif_applied=image.exif_applied,
        ),
        request_id=classification.request_id,
    )
    response.served.batch_size = inference.batch_size
    return response


# ---------------------------------------------------------------- the access log


def call_fields(call: Call, outcome: str) -> dict[str, object]:
    """The fields of the line of a call that ended before its message was read."""
    fields = {
        **common_fields(call, call.request_id, outcome, time.monotonic() - call.arrived_s),
        "path": cut(call.path),
        "model": cut(call.model),
    }
    return without_empty(fields)


def classification_fields(
    call: Call, classification: Classification, outcome: str
) -> dict[str, object]:
    """The fields of the line of a call that has one image."""
    elapsed_s = (classification.ended_s or time.monotonic()) - classification.began_s
    fields = {
        **common_fields(call, classification.request_id, outcome, elapsed_s),
        "model": cut(classification.request.model),
        "image_bytes": len(classification.content),
    }
    if classification.result and not isinstance(classification.result, ServingError):
        fields |= response_fields(classification.result)
    return without_empty(fields)


def batch_fields(call: Call, outcome: str, n_failed: int) -> dict[str, object]:
    """The fields of the line of a call that has several images."""
    images = call.classifications
    models = {image.request.model for image in images}
    return without_empty(
        {
            **common_fields(call, call.request_id, outcome, time.monotonic() - call.arrived_s),
            "model": cut(", ".join(sorted(models))),
            "images": len(images),
            "failed": n_failed,
            "image_bytes": sum(len(image.content) for image in images),
        }
    )


def common_fields(call: Call, request_id: str, outcome: str, elapsed_s: float) -> dict[str, object]:
    return {
        "request_id": request_id,
        "client": call.client,
        "door": call.transport,
        "trace_id": call.trace_id,
        "outcome": outcome,
        "total_ms": round(elapsed_s * 1e3, 2),
    }


def response_fields(response: pb.ClassifyResponse) -> dict[str, object]:
    timing, image = response.timing, response.image
    fields: dict[str, object] = {
        "version": response.version,
        "batch_size": response.served.batch_size,
        "image": f"{image.format} {image.width}x{image.height}",
        "decode_ms": timing.decode_us / 1e3,
        "preprocess_ms": timing.preprocess_us / 1e3,
        "infer_ms": timing.infer_us / 1e3,
    }
    if timing.HasField("queue_us"):
        fields["queue_ms"] = timing.queue_us / 1e3
    return fields


def without_empty(fields: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value != ""}
