"""A version is served only if its golden images are answered correctly, through the whole path.

That catches swapped labels or channels, a wrong mean, and stale or damaged models before users do.
"""

from __future__ import annotations

import asyncio

import numpy as np
import numpy.typing as npt

from convoy.v1 import classifier_pb2 as pb
from server.errors import ServingError
from server.evidence.messages import class_maps
from server.evidence.outputs import FEATURES, HEATMAP_CLASSES, HEATMAPS
from server.pipeline import Outcome, Pipeline, best_classes
from server.runners.base import LoadedModel, Runner


class NotProven(Exception):
    """A version answered a golden image incorrectly; the message says which, and how."""


async def prove(pipeline: Pipeline, runner: Runner, folder: str, model: LoadedModel) -> None:
    """Asks the version, on that runner, for each of its golden images.

    Raises:
        NotProven: there is none, or an answer differs by more than its build allows.
        RunnerUnavailable: the runner was lost meanwhile.
    """
    if not model.facts.golden_images:
        raise NotProven("it has no golden images: build it again with export/build.py")
    for golden in model.facts.golden_images:
        try:
            outcome = await pipeline.run(
                runner, folder, model, golden.content, expected_outputs(golden)
            )
        except ServingError as error:
            if error.reason == "RUNNER_UNAVAILABLE":
                raise
            raise NotProven(f"golden image {golden.name} is rejected: {error.message}") from error
        probabilities = outcome.probabilities
        if len(probabilities) != len(model.facts.labels):
            raise NotProven(
                f"it answers {len(probabilities)} classes and has {len(model.facts.labels)} labels"
            )
        await asyncio.to_thread(compare, golden, probabilities, model)
        compare_evidence(golden, outcome)


def compare(
    golden: pb.GoldenImage, probabilities: npt.NDArray[np.float32], model: LoadedModel
) -> None:
    """Every expected class must come back with its label and, within the tolerance, its score.

    With 100,000 labels it takes long.
    """
    answer = best_classes(probabilities, model.labels, len(probabilities))
    if (answer[0].index, answer[0].label) != (golden.expected[0].index, golden.expected[0].label):
        raise NotProven(
            f"golden image {golden.name} is answered {format_class(answer[0])}, "
            f"the build answered {format_class(golden.expected[0])}"
        )
    by_index = {answered.index: answered for answered in answer}
    for expected in golden.expected:
        answered = by_index[expected.index]
        if answered.label != expected.label:
            raise NotProven(
                f"golden image {golden.name}: class {expected.index} is called "
                f"{answered.label!r}, the build called it {expected.label!r}"
            )
        # Written so that NaN fails too.
        if not abs(answered.score - expected.score) <= golden.tolerance:
            raise NotProven(
                f"golden image {golden.name} is answered {format_class(answered)}, "
                f"the build answered {format_class(expected)}; "
                f"at most {golden.tolerance:g} is allowed"
            )


def expected_outputs(golden: pb.GoldenImage) -> list[str]:
    """What is asked of the graph beside probabilities."""
    names = [HEATMAPS, HEATMAP_CLASSES] if golden.HasField("expected_map") else []
    return [*names, FEATURES] if golden.expected_features else names


def compare_evidence(golden: pb.GoldenImage, outcome: Outcome) -> None:
    """The map of the best class, and the first of the features, must come back as well."""
    allowed = golden.evidence_tolerance
    if golden.HasField("expected_map"):
        expected = golden.expected_map
        heatmap = class_maps(outcome).get(expected.index)
        if heatmap is None or heatmap.size != len(expected.values):
            raise NotProven(f"golden image {golden.name} has no heat-map of {expected.label!r}")
        difference = np.abs(heatmap.ravel() - np.array(expected.values)).max()
        if not difference <= allowed:
            raise NotProven(
                f"golden image {golden.name}: the heat-map of {expected.label!r} differs from the "
                f"build's by {difference:.2g}, {allowed:g} is allowed"
            )
    if golden.expected_features:
        features = outcome.inference.outputs[FEATURES][0, : len(golden.expected_features)]
        similarity = cosine(features, np.array(golden.expected_features))
        if not similarity >= 1 - allowed:
            raise NotProven(
                f"golden image {golden.name}: the features have a cosine of {similarity:.4f} with "
                f"the build's, at least {1 - allowed:g} is required"
            )


def cosine(one: npt.NDArray[np.float32], other: npt.NDArray[np.float64]) -> float:
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / length if length else float(not (one.any() or other.any()))


def format_class(answer: pb.Class) -> str:
    return f"{answer.label!r} {answer.score:.4f}"
