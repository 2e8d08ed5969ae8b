"""Find one handwritten digit in a photograph or drawing, and prepare it for the digit networks.

    grey → a flat sheet → without margins → light ink on dark → one mark → size×size

The networks were trained on light ink on dark paper; the longer side of the digit is `box` pixels,
and its centre of mass is in the middle. People send dark ink on light paper or the reverse,
anywhere on an uneven sheet, with a shadow along one side. Each step was measured on drawn pictures
of digits that no training saw (docs/digits.md). Finding the digit's box matters most.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from convoy.v1 import classifier_pb2 as pb
from server.errors import ImageUnsuitable
from server.preprocessing.connected_components import Components, dilate, find_components

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LONG_SIDE = 256  # pixels; larger pictures are read no better, only more slowly
MIN_SIDE = 8  # pixels; no digit can be recognised in fewer


def prepare_digit(image: Image.Image, digit: pb.Digit) -> npt.NDArray[np.uint8]:
    """Prepare a decoded picture of any size: uint8, size×size×1, paper 0, ink 255.

    Raises:
        ImageUnsuitable: the picture has no ink, or more than one mark.
    """
    mark = find_mark(_small_grey(image))
    return _centre(_fit(mark, digit.box), digit.size)[:, :, np.newaxis]


def find_mark(grey: Floats) -> Floats:
    """Cut out the one mark on the sheet: H×W, ink from 0 to 1.

    `grey` is H×W, 0 to 255.

    Raises:
        ImageUnsuitable: the sheet has no mark, or more than one.
    """
    noise = _noise(grey)
    faintest = max(25.0, 5 * noise)  # grey levels; anything fainter is stains and noise
    problem = ImageUnsuitable(
        f"no ink found: nothing stands out from the background by {faintest:.0f} of 255 grey "
        "levels; write the digit with a darker or thicker pen, or come closer"
    )
    for reading in _readings(grey, noise):
        ink = _find_ink(reading, noise)
        if ink.level >= faintest and _has_a_mark(ink):
            try:
                return _choose_mark(ink)
            except ImageUnsuitable as error:
                problem = error
    raise problem


def _small_grey(image: Image.Image) -> Floats:
    width, height = image.size
    scale = min(1.0, LONG_SIDE / max(width, height))  # never enlarge: that adds no detail
    size = (round(width * scale), round(height * scale))
    if min(size) < MIN_SIDE:
        raise ImageUnsuitable(
            f"no ink found: the picture is {width}×{height}, too narrow for a digit; send one of "
            "about 100 pixels a side or more that shows one digit"
        )
    grey = image.convert("L")
    if scale < 1:
        grey = grey.resize(size, Image.Resampling.BOX)
    return np.asarray(grey, dtype=np.float32)


# ---------------------------------------------------------------- the sheet


def _readings(grey: Floats, noise: float) -> Iterator[Floats]:
    """Several readings of the sheet, paper near 0; the first one that shows one mark counts."""
    plain = _read_as_flat(grey, noise)
    if plain is not None:
        yield plain
    sheet = _subtract_light(grey)
    threshold = max(0.5 * otsu(np.abs(sheet)), 3 * noise)  # pixels further off are not paper
    bands = [_band(lines, threshold) for lines in _from_borders(sheet)]
    in_bands = np.zeros(sheet.shape, dtype=bool)
    for lines, count in zip(_from_borders(in_bands), bands, strict=True):
        lines[: count + 3 if count else 0] = True
    # A shadow may cover a part of the digit: the light of each shadow is fitted on its own.
    if any(bands):
        sheet = _subtract_light(grey, ignored=in_bands)
        levelled = _level_bands(sheet, bands)
        yield _clear(levelled, _touching_marks(levelled, threshold))
    # Marks that touch a border are shadows and table edges, unless nothing else is left.
    touching = in_bands | _touching_marks(sheet, threshold)
    if touching.mean() <= 0.5:
        yield _clear(_subtract_light(grey, ignored=touching), touching)
    # Otherwise the digit itself runs off the picture.
    yield _clear(sheet, in_bands)


def _read_as_flat(grey: Floats, noise: float) -> Floats | None:
    """The sheet if its paper is one flat level, as in a drawing or a clean scan; else None.

    In this reading, ink may fill half of the picture and touch its borders, as in a closely
    cropped digit. The other readings would mistake such ink for shadows.
    """
    levels = np.percentile(grey, [2, 98])  # paper is the darkest or the lightest level
    shares = [(np.abs(grey - level) <= max(4, 3 * noise)).mean() for level in levels]
    sheet: Floats = grey - np.float32(levels[np.argmax(shares)])
    off = np.abs(sheet) > max(otsu(np.abs(sheet)), 3 * noise)
    along_borders = max(lines[0].mean() for lines in _from_borders(off))
    if max(shares) < 0.25 or off.mean() > 0.55 or along_borders >= 0.95:
        return None
    marks = find_components(off)
    large = marks.areas >= 0.04 * marks.areas.max(initial=1)
    touches = marks.touches_border[large]
    # A sheet on a dark table would be a mark that fills its box; the only digit that does is an
    # upright 1.
    fills = bool((marks.areas > 0.8 * marks.box_areas)[large].any())
    # If the digit itself touches no border, marks that touch one are shadows.
    return None if fills or touches.any() != touches.all() else sheet


def _subtract_light(grey: Floats, ignored: Mask | None = None) -> Floats:
    """Subtract the light, a plane a + b·x + c·y: paper is then near 0, ink above or below.

    Light from one side is nearly a plane; a parabola was no better. The fit leaves out ignored
    pixels, and pixels far from the plane, which are ink.
    """
    height, width = grey.shape
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    step = max(1, max(height, width) // 96)  # about 9,000 pixels are enough
    used = np.ones_like(grey, dtype=bool) if ignored is None else ~ignored
    used = used[::step, ::step]
    if not used.any():  # the bands from both sides meet
        used = ~used
    ones, xs, ys = np.broadcast_arrays(1.0, x[:, ::step], y[::step])
    points = np.stack([ones[used], xs[used], ys[used]])  # 3×N
    samples = grey[::step, ::step][used]
    light = np.array([np.median(samples), 0, 0])
    for _ in range(6):
        error = np.abs(samples - np.einsum("in,i->n", points, light))
        paper = error <= max(2.0, 2.5 * float(np.median(error)))
        light = _least_squares(points[:, paper], samples[paper])
    sheet: Floats = (grey - (light[0] + light[1] * x + light[2] * y)).astype(np.float32)
    return sheet


def _least_squares(points: Doubles, samples: Floats) -> Doubles:
    """The three factors of a plane. By einsum, since a BLAS would start threads of its own."""
    squares = np.einsum("in,jn->ij", points, points)
    factors: Doubles = np.linalg.lstsq(squares, np.einsum("in,n->i", points, samples))[0]
    return factors


def _noise(grey: Floats) -> float:
    """The standard deviation of the noise, in grey levels.

    It is estimated from neighbouring pixels, between which light and shadow hardly differ.
    Deviations from the plane would count a dark corner as noise, and no ink would be found.
    """
    return max(1.0, 1.05 * float(np.median(np.abs(np.diff(grey, axis=1)))))


def otsu(values: Floats) -> float:
    """The threshold that separates non-negative values into two classes as far apart as possible.

    Source: Otsu, A threshold selection method from gray-level histograms, 1979.
    """
    counts, edges = np.histogram(values, bins=256, range=(0, max(float(values.max()), 1e-6)))
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = values.size - below
    sums = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = (sums[-1] - sums) / above - sums / below
    return float(edges[1 + int(np.argmax(np.nan_to_num(below * above * gap**2)))])


# ---------------------------------------------------------------- margins


def _from_borders(plane: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Views of the plane that start at its upper, lower, left and right border."""
    return [plane, plane[::-1], plane.T, plane.T[::-1]]


def _band(lines: Floats, threshold: float) -> int:
    """How many of the first lines are mostly not paper: a shadow, the table, the edge of a scan."""
    off = np.maximum((lines > threshold).mean(axis=1), (lines < -threshold).mean(axis=1))
    count = int(np.argmin(np.append(off >= 0.6, False)))
    return min(count, int(0.45 * len(lines)))


def _level_bands(sheet: Floats, bands: list[int]) -> Floats:
    """The sheet with each band brought to the level of paper; ink in the bands is kept."""
    sheet = sheet.copy()
    for lines, count in zip(_from_borders(sheet), bands, strict=True):
        if count < 6:  # too few to fit a light to
            lines[: count + 3 if count else 0] = 0
            continue
        lines[: count - 2] = _subtract_light(lines[: count - 2])
        # Interpolate across the blurred seam, so that strokes stay connected.
        lines[count - 3 : count + 4] = np.linspace(lines[count - 3], lines[count + 3], 7)
    return sheet


def _clear(sheet: Floats, mask: Mask) -> Floats:
    return np.where(mask, np.float32(0), sheet)


def _touching_marks(sheet: Floats, threshold: float) -> Mask:
    """Marks, darker or lighter than the paper, that touch a border, plus 3 pixels around them."""
    touching = np.zeros(sheet.shape, dtype=bool)
    for mask in (sheet > threshold, sheet < -threshold):
        marks = find_components(mask)
        touching |= marks.pixels(np.flatnonzero(marks.touches_border))
    return dilate(touching, 3)


# ---------------------------------------------------------------- the ink


@dataclass(frozen=True)
class Ink:
    """Ink above the paper."""

    values: Floats  # H×W, grey levels, at least 0
    threshold: float  # above this a pixel belongs to a mark
    level: float  # full ink


def _find_ink(sheet: Floats, noise: float) -> Ink:
    """Ink covers less than paper does: it is the longer tail of the distances from the paper."""
    sign = 1.0 if (sheet * sheet * sheet).sum(dtype=np.float64) >= 0 else -1.0
    values = np.maximum(sign * sheet, 0).astype(np.float32)
    threshold = max(otsu(values), 3 * noise)
    above = values[values > threshold]
    return Ink(values, threshold, float(np.median(above)) if above.size else 0.0)


def _has_a_mark(ink: Ink) -> bool:
    """Whether any mark is as large as a digit: 8 pixels, or a tenth of the shorter side."""
    marks = find_components(ink.values > ink.threshold)
    wanted = max(MIN_SIDE, 0.1 * min(ink.values.shape))
    return bool((marks.long_sides >= wanted).any())


# ---------------------------------------------------------------- the mark


def _choose_mark(ink: Ink) -> Floats:
    marks = find_components(ink.values > ink.threshold)
    chosen = _largest_with_pieces(marks)
    share = marks.areas[chosen].sum() / marks.areas.sum()
    if marks.count > 8 or share < 0.9:
        raise ImageUnsuitable(
            f"more than one mark: there are {marks.count} separate marks, and the largest has "
            f"{share:.0%} of the ink; send a picture that shows one digit and little else"
        )
    top, left, bottom, right = marks.box(chosen)
    values: Floats = np.clip(ink.values / ink.level, 0, 1)
    values[~dilate(marks.pixels(chosen), 1)] = 0  # one pixel more: the soft edge of the stroke
    return values[top:bottom, left:right]


def _largest_with_pieces(marks: Components) -> npt.NDArray[np.intp]:
    """The largest mark and the other pieces of its digit: the bar of a 5, half of a broken 0."""
    weights = marks.areas * np.where(marks.touches_border, 0.15, 1.0)
    chosen = np.array([np.argmax(weights)])
    candidates = marks.areas >= 0.04 * marks.areas[chosen[0]]  # smaller marks are dirt
    while True:
        pieces = candidates & _belongs(marks.boxes, marks.box(chosen))
        pieces[chosen] = True
        if pieces.sum() == len(chosen):
            return chosen
        chosen = np.flatnonzero(pieces)


def _belongs(boxes: npt.NDArray[np.intp], box: npt.NDArray[np.intp]) -> Mask:
    """Whether each mark may be a piece of the digit in `box`.

    It must be near. A mark that would make the digit wider than high is the next digit.
    """
    starts, ends = np.minimum(boxes[:, :2], box[:2]), np.maximum(boxes[:, 2:], box[2:])
    height, width = (ends - starts).T
    gaps = np.maximum(boxes[:, :2] - box[2:], box[:2] - boxes[:, 2:])  # N×2: down, across
    near = gaps < np.array([0.35, 0.25]) * (box[2:] - box[:2]).max()
    narrow = width <= np.maximum(1.1 * height, box[3] - box[1])
    belongs: Mask = narrow & near.all(axis=1)
    return belongs


# ---------------------------------------------------------------- the square


def _fit(mark: Floats, box: int) -> Floats:
    """Resize the mark until its longer side is `box` pixels, and stretch its ink to 1."""
    height, width = mark.shape
    scale = box / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    fitted = np.asarray(Image.fromarray(mark).resize(size, Image.Resampling.BICUBIC))
    # Thin strokes fade as they shrink: stretch most of the ink to full ink.
    inked = fitted[fitted > 0.1]
    full = max(0.2, float(np.percentile(inked, 90))) if inked.size else 0.2
    ink: Floats = np.clip(fitted / full, 0, 1)
    return ink


def _centre(fitted: Floats, size: int) -> npt.NDArray[np.uint8]:
    """Put the centre of mass in the middle of the square, to the nearest pixel; cut nothing off."""
    square = np.zeros((size, size), dtype=np.uint8)
    offsets = []
    for axis in (0, 1):
        weights = fitted.sum(axis=1 - axis)
        centre = float(weights @ np.arange(len(weights)) / weights.sum())
        offsets.append(min(max(0, round((size - 1) / 2 - centre)), size - len(weights)))
    top, left = offsets
    height, width = fitted.shape
    square[top : top + height, left : left + width] = np.round(fitted * 255)
    return square
