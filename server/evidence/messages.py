"""Evidence as messages of the contract."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from convoy.v1 import classifier_pb2 as pb
from server.evidence.occlusion import occlusion_map
from server.evidence.outputs import (
    FEATURES,
    HEATMAP_CLASSES,
    HEATMAPS,
    LAYER_PREFIX,
)
from server.pipeline import Outcome
from server.preprocessing.photo import crop_box

Floats = npt.NDArray[np.float32]

MAX_HEATMAPS = 5  # classes


def to_evidence(
    include: Sequence[pb.Evidence],
    facts: pb.Model,
    outcome: Outcome,
    classes: Iterable[pb.Class],
) -> pb.ClassifyResponse:
    """The fields of a response that `include` asks for, and no others; with the classes of it."""
    response = pb.ClassifyResponse()
    outputs = outcome.inference.outputs
    box = to_box(facts.preprocessing, (outcome.prepared.image.width, outcome.prepared.image.height))
    if pb.INPUT in include:
        response.input.png = to_png(outcome.prepared.pixels)
        if box:
            response.input.box.CopyFrom(box)
    if pb.HEATMAP in include:
        maps = class_maps(outcome) if outcome.covered is None else occlusion_maps(outcome)
        response.heatmap.CopyFrom(to_heatmap(facts.evidence, maps, classes))
        if box:
            response.heatmap.box.CopyFrom(box)
    if pb.FEATURES in include:
        response.features.values.extend(outputs[FEATURES][0].tolist())
    if pb.LAYERS in include:
        response.layers.layers.extend(
            to_layer(shape, outputs[f"{LAYER_PREFIX}{shape.name}"][0])
            for shape in facts.evidence.layers
        )
    return response


def to_png(pixels: npt.NDArray[np.uint8]) -> bytes:  # H×W×C
    content = io.BytesIO()
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    picture.save(content, "PNG")
    return content.getvalue()


def to_box(preprocessing: pb.Preprocessing, size: tuple[int, int]) -> pb.Box | None:
    """The part of an upright image of that width and height that the network's input shows."""
    if not preprocessing.HasField("photo"):
        return None
    left, top, right, bottom = crop_box(size, preprocessing.photo)
    return pb.Box(left=left, top=top, right=right, bottom=bottom)


def class_maps(outcome: Outcome) -> dict[int, Floats]:
    """The graph's maps, h×w each, by class."""
    outputs = outcome.inference.outputs
    indices, maps = outputs[HEATMAP_CLASSES][0].tolist(), outputs[HEATMAPS][0]
    return {index: scale(heatmap) for index, heatmap in zip(indices, maps, strict=True)}


def scale(heatmap: Floats) -> Floats:
    """From 0, the least evidence, to 1, the most.

    The zero of a class activation map means nothing: softmax ignores what is added to all classes.
    """
    low, high = heatmap.min(), heatmap.max()
    return (heatmap - low) / (high - low) if high > low else np.zeros_like(heatmap)


def occlusion_maps(outcome: Outcome) -> dict[int, Floats]:
    """A map, of as many numbers as cells, for each of the best classes."""
    assert outcome.covered is not None
    best = np.argsort(-outcome.probabilities, kind="stable")[:MAX_HEATMAPS].tolist()
    return {
        index: occlusion_map(float(outcome.probabilities[index]), outcome.covered[:, index])
        for index in best
    }


def to_heatmap(
    evidence: pb.ModelEvidence, maps: dict[int, Floats], classes: Iterable[pb.Class]
) -> pb.Heatmap:
    return pb.Heatmap(
        method=evidence.heatmap_method,
        passes=evidence.heatmap_passes,
        height=evidence.heatmap_height,
        width=evidence.heatmap_width,
        maps=[
            pb.ClassMap(
                label=answer.label, index=answer.index, values=maps[answer.index].ravel().tolist()
            )
            for answer in classes
            if answer.index in maps
        ],
    )


def to_layer(shape: pb.LayerShape, maps: Floats) -> pb.Layer:  # C×H×W
    low, high = float(maps.min()), float(maps.max())
    pixels = np.round((maps - low) * (255 / (high - low) if high > low else 0)).astype(np.uint8)
    return pb.Layer(shape=shape, pixels=pixels.tobytes(), minimum=low, maximum=high)


def to_unfamiliar(manifest: pb.Manifest, score: Floats) -> pb.Unfamiliar:  # 1×1
    threshold = manifest.unfamiliar_threshold
    has_threshold = manifest.HasField("unfamiliar_threshold")
    return pb.Unfamiliar(score=float(score[0, 0]), threshold=threshold if has_threshold else None)
