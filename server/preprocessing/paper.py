"""The sheet that a digit is written on, made flat: paper 0, ink above or below it.

Light falls unevenly, shadows and tables lie along the borders. A picture can be read in several
ways; `readings` gives them in the order in which they should be tried. Grey levels are whole
numbers, so that medians, shares and thresholds come from a histogram of 256 counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from server.preprocessing.connected_components import Components, dilate, find_components

Bytes = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.intp]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Plane = tuple[float, float, float]

LIGHT_SAMPLES = 32  # along the longer side: enough to fit a plane to
GREYS = np.arange(256)


@dataclass(frozen=True)
class Ink:
    """The ink of one reading."""

    sheet: Floats  # H×W, grey levels from the paper
    sign: float  # 1 where ink is lighter than paper, -1 where it is darker
    threshold: float  # grey levels; ink that is more is a mark
    level: float  # of full ink

    @cached_property
    def marks(self) -> Components:
        return find_components(self.sheet * np.float32(self.sign) > self.threshold)


def noise_of(grey: Bytes) -> float:
    """The standard deviation of the noise, in grey levels.

    From neighbours, for which light and shadow hardly differ; deviations from the plane would take
    a dark corner for noise, and then find no ink.
    """
    right, left = grey[:, 1:], grey[:, :-1]
    steps = np.maximum(right, left) - np.minimum(right, left)
    return max(1.0, 1.05 * percentile(cumulate(steps), 50))


def readings(grey: Bytes, noise: float) -> Iterator[Ink]:
    """The ink of each reading of the sheet; the first one that shows one mark counts."""
    if (flat := _read_as_flat(grey, noise)) is not None:
        yield flat
    floats = grey.astype(np.float32)
    sheet = _subtract_light(floats)
    threshold = max(
        0.5 * otsu(cumulate(np.abs(sheet))), 3 * noise
    )  # what is further off is not paper
    bands = _bands(sheet, threshold)
    in_bands = np.zeros(sheet.shape, dtype=bool)
    for lines, depth in zip(_from_borders(in_bands), bands, strict=True):
        lines[: depth + 2 if depth else 0] = True
    # A shadow may cover a part of the digit: the light of each shadow is fitted on its own.
    if any(bands):
        sheet = _subtract_light(floats, ignored=in_bands)
        levelled = _level_bands(sheet, bands)
        yield _find_ink(_clear(levelled, _touching_marks(levelled, threshold)), noise)
    # Marks that touch a border are shadows and table edges, unless nothing else is left.
    touching = in_bands | _touching_marks(sheet, threshold)
    if not touching.any():
        yield _find_ink(sheet, noise)
        return
    if touching.mean() <= 0.5:
        yield _find_ink(_clear(_subtract_light(floats, ignored=touching), touching), noise)
    # Otherwise the digit itself runs off the picture.
    yield _find_ink(_clear(sheet, in_bands), noise)


# ---------------------------------------------------------------- counts of grey levels


def cumulate(levels: npt.NDArray[Any]) -> Counts:
    """How many values are at most each whole level from 0 to 255; larger ones count as 255."""
    if levels.dtype != np.uint8:
        levels = np.minimum(levels, 255).astype(np.uint8)
    return np.cumsum(np.bincount(levels.ravel(), minlength=256))


def percentile(below: Counts, percent: float) -> int:
    """The level that this share of the cumulated values does not exceed."""
    return int(np.searchsorted(below, percent / 100 * below[-1]))


def otsu(below: Counts) -> float:
    """The threshold that separates the cumulated values into two classes as far apart as can be."""
    total = int(below[-1])
    sums = np.cumsum(np.diff(below, prepend=0) * GREYS)
    gap = sums * float(total) - float(sums[-1]) * below
    score = gap * gap / np.maximum(below * float(total) - below * below, 1)
    return int(np.argmax(score)) + 0.5


def _median_above(below: Counts, threshold: float) -> float:
    """The median of the cumulated values above the threshold; 0 where there are none."""
    under, total = int(below[int(threshold)]), int(below[-1])
    return float(np.searchsorted(below, (under + total) / 2)) if under < total else 0.0


# ---------------------------------------------------------------- paper of one level


def _read_as_flat(grey: Bytes, noise: float) -> Ink | None:
    """The ink if the paper is one flat level, as in a drawing or a clean scan; else None.

    In this reading, ink may fill half of the picture and touch its borders, as in a closely
    cropped digit. The other readings would mistake such ink for shadows.
    """
    below = cumulate(grey)
    reach = max(4, int(3 * noise))
    shares = {}  # paper is the darkest or the lightest level
    for level in (percentile(below, 2), percentile(below, 98)):
        darker = below[level - reach - 1] if level > reach else 0
        shares[level] = (below[min(level + reach, 255)] - darker) / grey.size
    paper = max(shares, key=shares.__getitem__)
    if shares[paper] < 0.25:
        return None
    sheet = grey.astype(np.float32) - np.float32(paper)
    distances = cumulate(np.abs(sheet))
    threshold = max(otsu(distances), 3 * noise)
    off = grey.size - distances[min(int(threshold), 255)]
    if off > 0.55 * grey.size:
        return None
    lighter = grey.size - below[min(paper + int(threshold), 255)]
    sign = 1.0 if lighter > 0.5 * off else -1.0
    ink = Ink(sheet, sign, threshold, _median_above(distances, min(threshold, 255)))
    return ink if _is_free(ink) else None


def _is_free(ink: Ink) -> bool:
    """Whether this is ink on paper, and not a sheet on a ground or shadows on a sheet."""
    inked = ink.marks.labels >= 0
    if max(np.count_nonzero(lines[0]) / len(lines[0]) for lines in _from_borders(inked)) >= 0.95:
        return False
    marks = ink.marks
    large = marks.areas >= 0.04 * marks.areas.max(initial=1)
    touches = marks.touches_border[large]
    # A sheet on a dark ground is a large mark that fills its box; strokes are small or do not.
    sheets = (marks.areas > 0.8 * marks.box_areas) & (marks.areas > 0.1 * inked.size)
    # Beside a digit that lies free, what touches a border is a shadow.
    return not sheets.any() and touches.any() == touches.all()


# ---------------------------------------------------------------- uneven light


def _subtract_light(grey: Floats, ignored: Mask | None = None) -> Floats:
    """Subtract the light, a plane a + b·x + c·y: paper is near 0 then, ink above or below.

    Light that falls from one side is nearly a plane; a parabola was no better. The fit leaves out
    what is ignored, and what is far from it, which is the ink.
    """
    height, width = grey.shape
    x, y = np.linspace(-1, 1, width), np.linspace(-1, 1, height)
    step = max(1, max(height, width) // LIGHT_SAMPLES)
    used = None if ignored is None else ~ignored[::step, ::step]
    if used is not None and not used.any():  # bands from either side have met
        used = None
    a, b, c = _fit_plane(grey[::step, ::step], x[::step], y[::step], used)
    return grey - ((a + b * x).astype(np.float32) + (c * y).astype(np.float32)[:, np.newaxis])


def _fit_plane(samples: Floats, x: Doubles, y: Doubles, used: Mask | None) -> Plane:
    """The factors a, b and c of the paper's plane, by least squares in at most six rounds."""
    # x depends on the column alone and y on the row, so that all sums are two small products.
    columns, rows = np.stack([x**0, x, x**2]), np.stack([y**0, y, y**2])
    plane = (float(_median(samples if used is None else samples[used])), 0.0, 0.0)
    before = None
    for _ in range(6):
        light = (plane[0] + plane[1] * x).astype(np.float32) + (plane[2] * y).astype(np.float32)[
            :, None
        ]
        error = np.abs(samples - light)
        reach = 2.0 if before is None else 2.5  # narrow at first, when a table would still count
        paper = error <= max(2.0, reach * _median(error if used is None else error[used]))
        if used is not None:
            paper &= used
        if before is not None and np.count_nonzero(paper != before) < 0.001 * paper.size:
            break
        before = paper
        powers = rows @ paper.astype(np.float64) @ columns.T  # of y down, of x across
        greys = rows[:2] @ np.where(paper, samples, 0).astype(np.float64) @ columns[:2].T
        plane = _solve(powers, greys)
    return plane


def _median(values: Floats) -> float:
    middle = values.size // 2
    return float(np.partition(values, middle, axis=None)[middle])


def _solve(powers: Doubles, greys: Doubles) -> Plane:
    """The plane of least squares from the sums of x and y's powers, and of grey times them.

    By Cramer's rule: of three unknowns that takes a tenth of the time of numpy's solver.
    """
    (n, x, xx), (y, xy, _), (yy, _, _) = powers.tolist()
    (g, gx), (gy, _) = greys.tolist()
    xx_yy, x_yy, x_xy = xx * yy - xy * xy, x * yy - xy * y, x * xy - xx * y
    determinant = n * xx_yy - x * x_yy + y * x_xy
    if abs(determinant) < 1e-9 * max(n, 1) ** 3:  # all of the paper lies on one line
        return g / max(n, 1), 0.0, 0.0
    a = g * xx_yy - x * (gx * yy - xy * gy) + y * (gx * xy - xx * gy)
    b = n * (gx * yy - xy * gy) - g * x_yy + y * (x * gy - gx * y)
    c = n * (xx * gy - gx * xy) - x * (x * gy - gx * y) + g * x_xy
    return a / determinant, b / determinant, c / determinant


# ---------------------------------------------------------------- margins


def _from_borders(plane: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Views whose first lines are those along the upper, lower, left and right border."""
    return [plane, plane[::-1], plane.T, plane.T[::-1]]


def _bands(sheet: Floats, threshold: float) -> list[int]:
    """How many lines from each border are mostly off the paper: shadows, tables, edges of scans."""
    over, under = sheet > threshold, sheet < -threshold
    height, width = sheet.shape
    rows = np.maximum(np.count_nonzero(over, axis=1), np.count_nonzero(under, axis=1)) / width
    columns = np.maximum(np.count_nonzero(over, axis=0), np.count_nonzero(under, axis=0)) / height
    return [_depth(shares) for shares in (rows, rows[::-1], columns, columns[::-1])]


def _depth(shares: Doubles) -> int:
    return min(int(np.argmin(np.append(shares >= 0.6, False))), int(0.45 * len(shares)))


def _level_bands(sheet: Floats, bands: list[int]) -> Floats:
    """Bring each band to the level of paper; its ink is kept."""
    sheet = sheet.copy()
    for lines, depth in zip(_from_borders(sheet), bands, strict=True):
        if depth < 4:  # too few to fit a light to
            lines[: depth + 2 if depth else 0] = 0
            continue
        lines[: depth - 1] = _subtract_light(lines[: depth - 1])
        # The blurred seam becomes a bridge between the lines on either side, so that strokes hold.
        lines[depth - 2 : depth + 3] = np.linspace(lines[depth - 2], lines[depth + 2], 5)
    return sheet


def _clear(sheet: Floats, mask: Mask) -> Floats:
    return np.where(mask, np.float32(0), sheet)


def _touching_marks(sheet: Floats, threshold: float) -> Mask:
    """Marks, darker or lighter than the paper, that touch a border, and 2 pixels around them."""
    touching = np.zeros(sheet.shape, dtype=bool)
    for mask in (sheet > threshold, sheet < -threshold):
        if any(lines[0].any() for lines in _from_borders(mask)):
            marks = find_components(mask)
            touching |= marks.pixels(np.flatnonzero(marks.touches_border))
    return dilate(touching, 2) if touching.any() else touching


# ---------------------------------------------------------------- ink


def _find_ink(sheet: Floats, noise: float) -> Ink:
    """Ink is the minority: it makes the longer tail of the distances from the paper."""
    tail = float(np.einsum("ij,ij,ij->", sheet, sheet, sheet, dtype=np.float64))
    sign = 1.0 if tail >= 0 else -1.0
    below = cumulate(np.maximum(sheet * np.float32(sign), 0))
    threshold = max(otsu(below), 3 * noise)
    return Ink(sheet, sign, threshold, _median_above(below, min(threshold, 255)))
