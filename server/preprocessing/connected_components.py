"""Connected components of a mask, corners included (8-connectivity). Takes milliseconds.

A mask is read as runs, the stretches of true pixels in each row. Runs that touch in neighbouring
rows are linked, and the links are followed to the lowest run of each component.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Components:
    """N connected components of a mask, numbered from 0."""

    labels: Integers  # H×W, the number of each pixel's component; -1 outside of all
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
    height, width = mask.shape
    stride = width + 2  # each row gets an empty pixel on either side, so that no run spans two rows
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8).ravel(), prepend=0)
    starts, ends = np.flatnonzero(edges == 1) - 1, np.flatnonzero(edges == -1) - 1
    lowest = _follow_links(*_touching_runs(starts, ends, stride), count=len(starts))
    # The first run of each component; the number of each run's component.
    first, number = np.unique(lowest, return_inverse=True)
    labels = np.full(mask.shape, -1, dtype=np.intp)
    labels[mask] = np.repeat(number, ends - starts)
    rows, lefts, rights = starts // stride, starts % stride, (ends - 1) % stride + 1
    boxes = np.empty((len(first), 4), dtype=np.intp)
    boxes[:] = (height, width, 0, 0)
    np.minimum.at(boxes[:, 0], number, rows)
    np.minimum.at(boxes[:, 1], number, lefts)
    np.maximum.at(boxes[:, 2], number, rows + 1)
    np.maximum.at(boxes[:, 3], number, rights)
    areas = np.bincount(number, weights=ends - starts, minlength=len(first)).astype(np.intp)
    return Components(labels, areas, boxes)


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
        if np.array_equal(a, b):
            return lowest
        np.minimum.at(lowest, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(lowest, lowest[lowest]):
            lowest = lowest[lowest]


def dilate(mask: Mask, by: int) -> Mask:
    """The mask, with `by` pixels added on every side."""
    padded = np.pad(mask, by)
    wide = sliding_window_view(padded, 2 * by + 1, axis=1).any(axis=-1)
    high: Mask = np.asarray(sliding_window_view(wide, 2 * by + 1, axis=0).any(axis=-1))
    return high
