"""Find one handwritten digit in a photograph or drawing, and prepare it for the digit networks.

    small and grey → a flat sheet → light ink on dark → one mark → size×size

The networks were trained on light ink on dark paper; the longer side of the digit is `box` pixels,
and its centre of mass is in the middle. People send dark ink on light paper or the reverse,
anywhere on an uneven sheet, with a shadow along one side. The digit is found in few pixels, and cut
out of more where it is small in them. Each step was measured on drawn pictures of digits that no
training saw (docs/digits.md). Finding the digit's box matters most.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from convoy.v1 import classifier_pb2 as pb
from server.errors import ImageUnsuitable
from server.preprocessing.connected_components import Components, dilate
from server.preprocessing.paper import Bytes, Floats, Ink, Mask, noise_of, readings
from server.preprocessing.resizing import resize

LONG_SIDE = 128  # pixels, about, that a digit is looked for in; in more it is found no better
SHORT_SIDE, LONGEST_SIDE = 48, 256  # of a long strip
MARK_SIDE = 96  # pixels; a smaller mark is cut out of the larger picture
GREY_SIDE = 480  # pixels of the longer side; an eighth of a 12-megapixel photo is a little more
MIN_SIDE = 8  # pixels; no digit can be recognised in fewer


def prepare_digit(image: Image.Image, digit: pb.Digit) -> npt.NDArray[np.uint8]:
    """Prepare a decoded picture of any size: uint8, size×size×1, paper 0, ink 255.

    Raises:
        ImageUnsuitable: the picture has no ink, or more than one mark.
    """
    picture = image if image.mode == "L" else image.convert("L")
    factor = _reduction(*picture.size)
    grey = np.asarray(picture.reduce(factor) if factor > 1 else picture)
    ink, chosen = find_mark(grey)
    mark = _cut_out(picture, factor, grey, ink, chosen)
    return _centre(_fit(mark, digit.box), digit.size)[:, :, np.newaxis]


def find_mark(grey: Bytes) -> tuple[Ink, npt.NDArray[np.intp]]:
    """The ink of the sheet, and which of its marks are the digit.

    Raises:
        ImageUnsuitable: the sheet has no mark, or more than one.
    """
    noise = noise_of(grey)
    faintest = max(25.0, 5 * noise)  # grey levels; anything fainter is stains and noise
    wanted = max(MIN_SIDE, 0.1 * min(grey.shape))  # pixels; anything shorter is no digit
    problem = ImageUnsuitable(
        f"no ink found: nothing stands out from the background by {faintest:.0f} of 255 grey "
        "levels; write the digit with a darker or thicker pen, or come closer"
    )
    for ink in readings(grey, noise):
        if ink.level >= faintest and (ink.marks.long_sides >= wanted).any():
            try:
                return ink, _choose(ink.marks)
            except ImageUnsuitable as error:
                problem = error
    raise problem


def _reduction(width: int, height: int) -> int:
    """How many pixels of the picture, along each side, become one that the digit is looked for in.

    Raises:
        ImageUnsuitable: too few would be left.
    """
    long, short = max(width, height), min(width, height)
    # A long strip keeps more: its digit is no higher than the strip.
    factor = max(1, -(-long // LONGEST_SIDE), min(round(long / LONG_SIDE), short // SHORT_SIDE))
    if short // factor < MIN_SIDE:
        raise ImageUnsuitable(
            f"no ink found: the picture is {width}×{height}, too narrow for a digit; send one of "
            "about 100 pixels a side or more that shows one digit"
        )
    return factor


# ---------------------------------------------------------------- the mark


def _choose(marks: Components) -> npt.NDArray[np.intp]:
    if marks.count == 1:
        return np.zeros(1, dtype=np.intp)
    chosen = _largest_with_pieces(marks)
    share = marks.areas[chosen].sum() / marks.areas.sum()
    if marks.count > 8 or share < 0.9:
        raise ImageUnsuitable(
            f"more than one mark: there are {marks.count} separate marks, and the largest has "
            f"{share:.0%} of the ink; send a picture that shows one digit and little else"
        )
    return chosen


def _largest_with_pieces(marks: Components) -> npt.NDArray[np.intp]:
    """The largest mark and the pieces of the same digit: the bar of a 5, half of a broken 0."""
    weights = marks.areas * np.where(marks.touches_border, 0.15, 1.0)
    chosen = np.array([np.argmax(weights)])
    candidates = marks.areas >= 0.04 * marks.areas[chosen[0]]  # anything smaller is dirt
    while True:
        pieces = candidates & _belongs(marks.boxes, marks.box(chosen))
        pieces[chosen] = True
        if pieces.sum() == len(chosen):
            return chosen
        chosen = np.flatnonzero(pieces)


def _belongs(boxes: npt.NDArray[np.intp], box: npt.NDArray[np.intp]) -> Mask:
    """Whether each mark may be a piece of the digit in `box`.

    It must be near, and not make the digit wider than high: then it is the next digit. But a low
    stroke right above or below is the bar of a slanted 5, however far it reaches.
    """
    starts, ends = np.minimum(boxes[:, :2], box[:2]), np.maximum(boxes[:, 2:], box[2:])
    height, width = (ends - starts).T
    sides = box[2:] - box[:2]
    gaps = np.maximum(boxes[:, :2] - box[2:], box[:2] - boxes[:, 2:])  # N×2: down, across
    near = (gaps < np.array([0.4, 0.25]) * sides.max()).all(axis=1)
    narrow = width <= np.maximum(1.1 * height, sides[1])
    heights = boxes[:, 2] - boxes[:, 0]
    low = np.minimum(heights, sides[0]) < 0.6 * np.maximum(heights, sides[0])
    is_bar = low & (gaps[:, 0] < 0.1 * sides.max()) & (gaps[:, 1] < 0)
    belongs: Mask = near & (narrow | is_bar)
    return belongs


def _cut_out(
    picture: Image.Image, factor: int, grey: Bytes, ink: Ink, chosen: npt.NDArray[np.intp]
) -> Floats:
    """The chosen marks alone, ink from 0 to 1: from the picture itself where they are small."""
    top, left, bottom, right = (int(side) for side in ink.marks.box(chosen))
    more = min(factor, MARK_SIDE / max(bottom - top, right - left))
    if more > 1:  # their box is known to a pixel of grey; it is found again in the finer picture
        top, left = max(0, top - 1), max(0, left - 1)
        bottom, right = min(bottom + 1, grey.shape[0]), min(right + 1, grey.shape[1])
    part = (slice(top, bottom), slice(left, right))
    sheet = ink.sheet[part]
    near = dilate(ink.marks.pixels(chosen)[part], 1)  # one pixel more: the stroke's soft edge
    if more > 1:
        height, width = round((bottom - top) * more), round((right - left) * more)
        ends = min(right * factor, picture.width), min(bottom * factor, picture.height)
        box = (left * factor, top * factor, *ends)
        fine = np.asarray(resize(picture, (width, height), Image.Resampling.BOX, box))
        rows = np.arange(height)[:, np.newaxis] * (bottom - top) // height
        columns = np.arange(width) * (right - left) // width
        sheet = fine - (grey[part] - sheet)[rows, columns]
        near = near[rows, columns]
    values = np.minimum(np.maximum(sheet * np.float32(ink.sign / ink.level), 0), 1)
    values[~near] = 0
    return _trim(values, ink.threshold / ink.level) if more > 1 else values


def _trim(values: Floats, threshold: float) -> Floats:
    """Without the rows and columns along the borders that have no ink above the threshold."""
    is_ink = values > threshold
    rows, columns = np.flatnonzero(is_ink.any(axis=1)), np.flatnonzero(is_ink.any(axis=0))
    if not len(rows):
        return values
    return values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


# ---------------------------------------------------------------- the square


def _fit(mark: Floats, box: int) -> Floats:
    """The mark with its longer side `box` pixels, its ink stretched to 1."""
    height, width = mark.shape
    scale = box / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    fitted = np.asarray(resize(Image.fromarray(mark), size, Image.Resampling.BICUBIC))
    # Thin strokes fade as they shrink: most of what is ink at all becomes full ink.
    inked = np.sort(fitted[fitted > 0.1])
    full = max(0.2, float(inked[int(0.9 * (len(inked) - 1))])) if inked.size else 0.2
    ink: Floats = np.clip(fitted / np.float32(full), 0, 1)
    return ink


def _centre(fitted: Floats, size: int) -> npt.NDArray[np.uint8]:
    """The centre of mass in the middle of the square, to the nearest pixel, nothing cut off."""
    square = np.zeros((size, size), dtype=np.uint8)
    offsets = []
    for axis in (0, 1):
        weights = fitted.sum(axis=1 - axis)
        centre = float((weights * np.arange(len(weights))).sum() / weights.sum())
        offsets.append(min(max(0, round((size - 1) / 2 - centre)), size - len(weights)))
    top, left = offsets
    height, width = fitted.shape
    square[top : top + height, left : left + width] = np.round(fitted * 255)
    return square
