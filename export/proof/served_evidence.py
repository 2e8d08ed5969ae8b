"""The last rung's comparison of heat-maps and features: what is served, and what the file gives.

A heat-map that the gateway makes by occlusion is made here again, by code of the ladder's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convoy import Client
from convoy.v1 import classifier_pb2 as pb
from export.errors import ParityError
from export.proof.evidence import (
    Evidence,
    Floats,
    feature_cosines,
    judge_evidence,
    map_differences,
    scale,
)
from export.proof.runtimes import Runtime
from export.samples.images import Pixels

MAX_CLASSES = 5
MIN_PROBABILITY = 1e-12


def compare_served_evidence(
    rung: pb.ParityRung,
    client: Client,
    model: pb.Model,  # with its name and version in the gateway
    runtime: Runtime,
    names: Sequence[str],  # of the pictures
    contents: Sequence[bytes],
    pixels: Pixels,  # as the gateway must preprocess them
    *,
    max_batch_size: int,
) -> None:
    """Compares one picture by occlusion, which takes 50 passes; all pictures otherwise.

    Raises:
        ParityError: they differ by more than the rung allows; the message names the picture.
        ConvoyError: the gateway refuses a picture.
    """
    by_occlusion = model.evidence.heatmap_method == pb.OCCLUSION
    include = [pb.Evidence.Name(kind) for kind in model.evidence.include if kind != pb.LAYERS]
    differences, cosines = [], []
    for name, content, picture in zip(names, contents, pixels, strict=True):
        served = _served(client, model, content, picture, include)
        expected = _scaled(runtime.evidence(picture[np.newaxis]))
        if by_occlusion:
            expected = _occluded(runtime, expected, picture, model, max_batch_size)
        differences += [(number, name) for number in map_differences(expected, served)]
        cosines += [(number, name) for number in feature_cosines(expected, served)]
        if by_occlusion:
            break
    judge_evidence(rung, differences, cosines)


def _served(
    client: Client, model: pb.Model, content: bytes, picture: Pixels, include: Sequence[str]
) -> Evidence:
    """
    Raises:
        ParityError: the network saw other pixels than it had to.
    """
    answer = client.classify(
        content, model=model.name, version=model.version, min_score=0, include=include
    )
    if answer.input and not np.array_equal(answer.input.pixels, picture):
        raise ParityError("The gateway shows another input than the network must have seen.")
    maps = answer.heatmap.maps if answer.heatmap else {}
    return Evidence(
        classes=np.array([list(maps)]) if maps else None,
        heatmaps=np.stack(list(maps.values()))[np.newaxis] if maps else None,
        features=None if answer.features is None else answer.features[np.newaxis],
    )


def _scaled(evidence: Evidence) -> Evidence:  # of one image
    if evidence.heatmaps is None:
        return Evidence(features=evidence.features)
    maps = np.stack([scale(heatmap) for heatmap in evidence.heatmaps[0]])
    return Evidence(evidence.classes, maps[np.newaxis], evidence.features)


def _occluded(
    runtime: Runtime, evidence: Evidence, picture: Pixels, model: pb.Model, max_batch_size: int
) -> Evidence:
    """With the maps of the best classes, by covering one cell and half of its neighbours."""
    side, length = model.evidence.heatmap_height, len(picture)
    edges = [round((cell - 0.5) * length / side) for cell in range(side + 3)]
    colour = np.round(np.array(model.input.mean) * 255).astype(np.uint8)
    covered = np.repeat(picture[np.newaxis], side**2, axis=0)
    for cell, copy in enumerate(covered):
        row, column = divmod(cell, side)
        rows = slice(max(0, edges[row]), edges[row + 2])
        copy[rows, max(0, edges[column]) : edges[column + 2]] = colour
    batches = range(0, len(covered), max_batch_size)
    scores = np.concatenate(
        [runtime.answer(covered[start : start + max_batch_size]) for start in batches]
    )
    uncovered = runtime.answer(picture[np.newaxis])[0]
    best = np.argsort(-uncovered, kind="stable")[:MAX_CLASSES]
    maps = np.stack([_drops(uncovered[index], scores[:, index]) for index in best])
    shape = (1, len(best), side, side)
    return Evidence(best[np.newaxis], maps.reshape(shape), evidence.features)


def _drops(uncovered: float, covered: Floats) -> Floats:
    logarithms = np.log(np.maximum([uncovered, *covered], MIN_PROBABILITY))
    drops = np.maximum(logarithms[0] - logarithms[1:], 0)
    scaled: Floats = (drops / drops.max() if drops.max() > 0 else drops).astype(np.float32)
    return scaled
