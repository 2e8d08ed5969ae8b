import asyncio
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from convoy.v1 import classifier_pb2 as pb
from server.errors import DeadlineExceeded
from server.evidence.occlusion import Grid, mean_colour, occlude, occlusion_map
from server.runners.base import Inference, LoadedModel

GREY = np.array([20], np.uint8)


def test_patches_cover_the_whole_input_and_reach_into_their_neighbours() -> None:
    pixels = np.full((32, 32, 1), 255, np.uint8)
    grid = Grid(7, 7)
    covered = np.stack([grid.cover(pixels, cell, GREY) for cell in range(len(grid))])
    assert len(covered) == 49 and (covered == 20).any(axis=0).all()
    rows, columns, _ = np.nonzero(covered[24] == 20)
    # The cell in the middle is 13.7 to 18.3, and as much again lies around it.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (11, 20, 11, 20)
    assert (pixels == 255).all(), "the input itself stays"


def test_patches_have_the_mean_colour_of_the_networks_training() -> None:
    facts = pb.Model(input=pb.Input(mean=[0.485, 0.456, 0.406]))
    assert mean_colour(facts).tolist() == [124, 116, 104]


def test_a_map_is_how_much_less_probable_a_class_gets() -> None:
    covered = np.array([0.8, 0.8, 0.4, 0.1, 0.9], np.float32)
    heatmap = occlusion_map(0.8, covered)
    assert heatmap == pytest.approx([0, 0, 1 / 3, 1, 0], abs=1e-6)
    assert occlusion_map(0.8, np.full(4, 0.8, np.float32)).tolist() == [0, 0, 0, 0]
    assert np.isfinite(occlusion_map(1.0, np.array([0.0, 1.0], np.float32))).all()


class Slow:
    """Of the runner's methods the one that is asked, and how often it was."""

    def __init__(self, pass_s: float) -> None:
        self.pass_s = pass_s
        self.sizes: list[int] = []

    async def infer(
        self,
        name: str,
        images: npt.NDArray[np.uint8],
        timeout_s: float | None = None,
        outputs: Sequence[str] = (),
    ) -> Inference:
        self.sizes.append(len(images))
        await asyncio.sleep(self.pass_s)
        return Inference(np.full((len(images), 10), 0.1, np.float32), len(images))


MODEL = LoadedModel(
    facts=pb.Model(
        input=pb.Input(mean=[0.1]), evidence=pb.ModelEvidence(heatmap_height=7, heatmap_width=7)
    ),
    runtime="",
    device="cpu",
    max_batch_size=8,
)
PIXELS = np.zeros((32, 32, 1), np.uint8)


def run(runner: Slow, pass_s: float, timeout_s: float | None) -> npt.NDArray[np.float32]:
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    return asyncio.run(occlude(runner, "a.v1", MODEL, PIXELS, pass_s, deadline_s))  # type: ignore[arg-type]


def test_covered_inputs_go_in_batches_of_the_models_own_size() -> None:
    runner = Slow(0)
    assert run(runner, 0, None).shape == (49, 10)
    assert runner.sizes == [8] * 6 + [1]


def test_a_deadline_that_cannot_be_met_is_refused_before_anything_is_computed() -> None:
    runner = Slow(0)
    with pytest.raises(DeadlineExceeded, match="49 more images through the network, at least 7"):
        run(runner, pass_s=1, timeout_s=6)
    assert runner.sizes == []


def test_what_the_first_batch_took_can_refuse_as_well() -> None:
    runner = Slow(0.2)
    with pytest.raises(DeadlineExceeded, match="41 more images"):
        run(runner, pass_s=0.01, timeout_s=1.0)
    assert runner.sizes == [8]
