"""ClassifyResponse as JSON, written field by field.

protobuf's own writer asks the message for its description again with each answer, and takes ten
times as long. Its result is the same, once the numbers of 32 bits are written in as few digits as
tell them apart (json_response.py).
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from google.protobuf import json_format

from convoy.v1 import classifier_pb2 as pb

EvidenceField: TypeAlias = Literal["input", "heatmap", "features", "layers"]

# What few requests include, and protobuf writes therefore.
EVIDENCE: tuple[EvidenceField, ...] = ("input", "heatmap", "features", "layers")


def response_to_dict(response: pb.ClassifyResponse) -> dict[str, Any]:
    """In snake_case and with all fields, but those that are messages or optional and not set."""
    members: dict[str, Any] = {
        "classes": [class_to_dict(candidate) for candidate in response.classes],
        "model": response.model,
        "version": response.version,
        "request_id": response.request_id,
    }
    if response.HasField("served"):
        members["served"] = served_to_dict(response.served)
    if response.HasField("timing"):
        members["timing"] = timing_to_dict(response.timing)
    if response.HasField("image"):
        members["image"] = image_to_dict(response.image)
    if response.HasField("unfamiliar"):
        members["unfamiliar"] = unfamiliar_to_dict(response.unfamiliar)
    for name in EVIDENCE:
        if response.HasField(name):
            members[name] = json_format.MessageToDict(
                getattr(response, name),
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
    return members


def class_to_dict(candidate: pb.Class) -> dict[str, Any]:
    return {
        "label": candidate.label,
        "score": np.float32(candidate.score),
        "index": candidate.index,
        "id": candidate.id,
    }


def served_to_dict(served: pb.Served) -> dict[str, Any]:
    return {
        "runtime": served.runtime,
        "precision": served.precision,
        "device": served.device,
        "weights": served.weights,
        "manifest_digest": served.manifest_digest,
        "batch_size": served.batch_size,
    }


def unfamiliar_to_dict(unfamiliar: pb.Unfamiliar) -> dict[str, Any]:
    members: dict[str, Any] = {"score": np.float32(unfamiliar.score)}
    if unfamiliar.HasField("threshold"):
        members["threshold"] = unfamiliar.threshold
    return members


def timing_to_dict(timing: pb.Timing) -> dict[str, Any]:
    members = {
        "decode_us": timing.decode_us,
        "preprocess_us": timing.preprocess_us,
        "infer_us": timing.infer_us,
        "total_us": timing.total_us,
    }
    if timing.HasField("queue_us"):
        members["queue_us"] = timing.queue_us
    if timing.HasField("compute_us"):
        members["compute_us"] = timing.compute_us
    return members


def image_to_dict(image: pb.ImageFacts) -> dict[str, Any]:
    return {
        "width": image.width,
        "height": image.height,
        "format": image.format,
        "exif_applied": image.exif_applied,
    }
