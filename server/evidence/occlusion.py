"""A heat-map of a network that has no maps of its own: by covering one part after the other.

M. D. Zeiler, R. Fergus, "Visualizing and Understanding Convolutional Networks", 2014, section 4.2:
the evidence for a class lies where the class gets less probable once it is covered. The patches
have the mean colour of the network's training set. They lie on a grid, one per cell of the map, and
are twice as wide as a cell, so that no stroke hides at the border between two.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convoy.v1 import classifier_pb2 as pb
from server.errors import DeadlineExceeded
from server.runners.base import LoadedModel, Runner

Pixels = npt.NDArray[np.uint8]  # H×W×C
Floats = npt.NDArray[np.float32]

MIN_PROBABILITY = 1e-12  # float32 has smaller ones, of which only the rounding is left


@dataclass(frozen=True)
class Grid:
    """The cells of a map, over the network's input."""

    height: int
    width: int

    def __len__(self) -> int:
        return self.height * self.width

    def cover(self, pixels: Pixels, cell: int, colour: Pixels) -> Pixels:
        """A copy with the patch around that cell, by rows; `colour` has C values."""
        row, column = divmod(cell, self.width)
        covered = pixels.copy()
        rows = _patch(row, self.height, pixels.shape[0])
        columns = _patch(column, self.width, pixels.shape[1])
        covered[rows, columns] = colour
        return covered


def _patch(cell: int, cells: int, length: int) -> slice:
    """The cell and half a cell on both sides, within the picture."""
    first, last = (round((cell + offset) * length / cells) for offset in (-0.5, 1.5))
    return slice(max(0, first), min(length, last))


def mean_colour(facts: pb.Model) -> Pixels:
    return np.round(np.array(facts.input.mean) * 255).astype(np.uint8)


async def occlude(
    runner: Runner,
    folder: str,
    model: LoadedModel,
    pixels: Pixels,
    pass_s: float,
    deadline_s: float | None,
) -> Floats:
    """Probabilities, K each, of the input with each cell covered: cells×K.

    The covered inputs go through the network in batches of the model's own size. As soon as what
    was measured says that they will not be done by the deadline, on the clock of time.monotonic(),
    nothing more is computed: `pass_s` is how long the uncovered input took, and a batch takes that
    long at least.

    Raises:
        ServingError: the deadline is too near, or the runner failed.
    """
    evidence = model.facts.evidence
    grid, colour = Grid(evidence.heatmap_height, evidence.heatmap_width), mean_colour(model.facts)
    starts = range(0, len(grid), model.max_batch_size)
    probabilities: list[Floats] = []
    for done, start in enumerate(starts):
        remaining_s = None if deadline_s is None else deadline_s - time.monotonic()
        if remaining_s is not None and pass_s * (len(starts) - done) > remaining_s:
            raise too_late(len(grid) - start, pass_s * (len(starts) - done), remaining_s)
        cells = range(start, min(start + model.max_batch_size, len(grid)))
        batch = np.stack([grid.cover(pixels, cell, colour) for cell in cells])
        started_s = time.monotonic()
        inference = await runner.infer(folder, batch, remaining_s)
        pass_s = time.monotonic() - started_s
        probabilities.append(inference.probabilities)
    return np.concatenate(probabilities)


def too_late(passes: int, needed_s: float, remaining_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"the heat-map needs {passes} more images through the network, at least {needed_s:.3f} s, "
        f"but the deadline is in {max(0.0, remaining_s):.3f} s: wait longer, or leave out HEATMAP"
    )


def occlusion_map(uncovered: float, covered: Floats) -> Floats:
    """How much less probable a class gets, as a logarithm, for each of N cells.

    0 is no less, or more; 1 is the most of this map. `uncovered` and the N of `covered` are the
    probabilities of the class.
    """
    logarithms = np.log(np.maximum(covered, MIN_PROBABILITY))
    drops = np.maximum(np.log(max(uncovered, MIN_PROBABILITY)) - logarithms, 0)
    largest = drops.max()
    scaled: Floats = (drops / largest if largest > 0 else drops).astype(np.float32)
    return scaled
