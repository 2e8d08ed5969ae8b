"""Connected components of a mask, corners included (8-connectivity).

A mask is read as runs, the stretches of true pixels in each row. Runs that touch in neighbouring
rows are linked, and the links are followed to the lowest run of each component.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Components:
    """N connected components of a mask, numbered from 0."""

    labels: npt.NDArray[np.int32]  # H×W, the number of each pixel's component; -1 outside of all
    areas: Integers  # N, pixels
    boxes: Integers  # N×4: top, left, bottom, right, the last two past the end

    @property
    def count(self) -> int:
        return len(self.areas)

    @property
    def long_sides(self) -> Integers:
        sides: Integers = (self.boxes[:, 2:] - self.boxes[:, :2]).max(axis=1)
        return sides

    @property
    def box_areas(self) -> Integers:
        areas: Integers = (self.boxes[:, 2:] - self.boxes[:, :2]).prod(axis=1)
        return areas

    @property
    def touches_border(self) -> Mask:
        ends = np.array(self.labels.shape)
        touches: Mask = ((self.boxes[:, :2] == 0) | (self.boxes[:, 2:] == ends)).any(axis=1)
        return touches

    def box(self, chosen: Integers) -> Integers:
        """Top, left, bottom and right of the chosen components together."""
        boxes = self.boxes[chosen]
        return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])

    def pixels(self, chosen: Integers) -> Mask:
        """H×W: true where one of the chosen components is."""
        is_chosen = np.zeros(self.count + 1, dtype=bool)  # the last for -1
        is_chosen[chosen] = True
        pixels: Mask = is_chosen[self.labels]
        return pixels


def find_components(mask: Mask) -> Components:
    """The components of an H×W mask."""
    stride = mask.shape[1] + 2  # an empty pixel on either side, so that no run spans two rows
    padded = np.zeros((len(mask), stride), dtype=bool)
    padded[:, 1:-1] = mask
    flat = padded.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    starts, ends = edges[::2], edges[1::2]  # of each run
    labels = np.full(mask.shape, -1, dtype=np.int32)
    if not len(starts):
        return Components(labels, np.zeros(0, np.intp), np.zeros((0, 4), np.intp))
    lowest = _follow_links(*_touching_runs(starts, ends, stride), count=len(starts))
    is_lowest = lowest == np.arange(len(lowest))
    number = (np.cumsum(is_lowest) - 1)[lowest]  # of each run's component
    lengths = ends - starts
    labels[mask] = np.repeat(number, lengths)
    rows, lefts = np.divmod(starts, stride)
    # The runs, component by component; each begins where its lowest run would.
    order = np.argsort(number, kind="stable")
    first = np.searchsorted(number[order], np.arange(np.count_nonzero(is_lowest)))
    rows, lefts, lengths = rows[order], lefts[order], lengths[order]
    tops, bottoms = np.minimum.reduceat(rows, first), np.maximum.reduceat(rows, first) + 1
    left_ends = np.minimum.reduceat(lefts, first)
    right_ends = np.maximum.reduceat(lefts + lengths, first)
    boxes = np.stack([tops, left_ends, bottoms, right_ends], axis=1)
    return Components(labels, np.add.reduceat(lengths, first), boxes)


def _touching_runs(starts: Integers, ends: Integers, stride: int) -> tuple[Integers, Integers]:
    """Pairs of runs that touch, corners included: a run and one in the row above."""
    first = np.searchsorted(ends, starts - stride, side="left")
    last = np.searchsorted(starts, ends - stride, side="right")
    counts = np.maximum(last - first, 0)
    run = np.repeat(np.arange(len(starts)), counts)
    within = np.arange(len(run)) - np.repeat(np.cumsum(counts) - counts, counts)
    return run, first[run] + within


def _follow_links(one: Integers, other: Integers, *, count: int) -> Integers:
    """For each of `count` runs, the lowest run that the links lead to."""
    lowest = np.arange(count)
    while True:
        a, b = lowest[one], lowest[other]
        if (a == b).all():
            return lowest
        np.minimum.at(lowest, np.maximum(a, b), np.minimum(a, b))
        while ((further := lowest[lowest]) != lowest).any():
            lowest = further


def dilate(mask: Mask, by: int) -> Mask:
    """The mask, with `by` pixels added on every side."""
    wide = mask.copy()
    for step in range(1, by + 1):
        wide[:, step:] |= mask[:, :-step]
        wide[:, :-step] |= mask[:, step:]
    high = wide.copy()
    for step in range(1, by + 1):
        high[step:] |= wide[:-step]
        high[:-step] |= wide[step:]
    return high
