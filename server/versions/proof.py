"""A version is served only if its golden images are answered correctly, through the whole path.

That catches swapped labels or channels, a wrong mean, and stale or damaged models before users do.
"""

from __future__ import annotations

from convoy.v1 import classifier_pb2 as pb
from server.errors import ServingError
from server.pipeline import Pipeline, best_classes
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
            outcome = await pipeline.run(runner, folder, model, golden.content)
        except ServingError as error:
            if error.reason == "RUNNER_UNAVAILABLE":
                raise
            raise NotProven(f"golden image {golden.name} is rejected: {error.message}") from error
        probabilities = outcome.probabilities
        if len(probabilities) != len(model.facts.labels):
            raise NotProven(
                f"it answers {len(probabilities)} classes and has {len(model.facts.labels)} labels"
            )
        compare(golden, best_classes(probabilities, model.facts.labels, len(probabilities)))


def compare(golden: pb.GoldenImage, answer: list[pb.Class]) -> None:
    """Every expected class must come back with its label and, within the tolerance, its score."""
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


def format_class(answer: pb.Class) -> str:
    return f"{answer.label!r} {answer.score:.4f}"
