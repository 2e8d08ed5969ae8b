"""Handwritten digits: the data set, its splits, and the augmentation for training.

The data set is scikit-learn's `load_digits`: 1,797 digits of 8×8 pixels. In training and serving, a
digit is light ink on dark paper in a square of 32 pixels; its longest side has 20 pixels, and its
centre of mass is in the middle. `server/preprocessing/digit.py` makes that square from a picture.
This module makes it from the data set and augments it at each use: rotated, bent, in another
handwriting.

8×8 pixels do not show the handwriting. So each digit is kept as two fields on a finer grid: its
grey levels, whose thresholds give marker strokes, and the distance to its skeleton, whose
thresholds give pen strokes.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from export.catalog import DIGIT_BOX, DIGIT_MEAN, DIGIT_SIZE, DIGIT_STD

if TYPE_CHECKING:  # proofs need digits, and not torch
    import torch
    from torch import Tensor

FINE = 12  # points of the fine grid per pixel of the data set
_INK = 0.42  # of the darkest pixel: the least that counts as ink when a digit's box is measured

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


class Part(NamedTuple):
    """Rows of the data set for training and for measuring."""

    train: Integers
    held_out: Integers


@cache
def data_set() -> tuple[Floats, Integers]:
    """All digits, N×8×8 in 0 (paper) to 1 (ink), and their labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)


def random_fifth() -> Part:
    """360 digits held out, 35 to 37 per class; the training part surely has the same writers."""
    from sklearn.model_selection import train_test_split

    _, labels = data_set()
    rows = np.arange(len(labels))
    return Part(*train_test_split(rows, test_size=360, stratify=labels, random_state=0))


def contiguous_fifths() -> list[Part]:
    """Each fifth of the rows held out in turn: harder, since the rows seem ordered by writer."""
    _, labels = data_set()
    rows = np.arange(len(labels))
    return [Part(np.setdiff1d(rows, fifth), fifth) for fifth in np.array_split(rows, 5)]


@dataclass(frozen=True)
class Stroke:
    """A digit on the fine grid, 120×120 points."""

    grey: Floats  # 0 paper, 1 the darkest ink
    distance: Floats  # to the skeleton, in grid points
    length: float  # longest side of the digit's box, in grid points
    centre: tuple[float, float]  # x and y of the centre of mass, in grid points


def stroke(digit: Floats) -> Stroke:
    """Returns the fields of one digit, 8×8."""
    from scipy.ndimage import center_of_mass, distance_transform_edt, gaussian_filter
    from skimage.morphology import skeletonize

    padded = np.pad(digit, 1)
    side = len(padded) * FINE
    fine = Image.fromarray(padded).resize((side, side), Image.Resampling.BICUBIC)
    grey = np.clip(np.asarray(fine) / np.asarray(fine).max(), 0, 1)
    # Compared with the local mean: one threshold for the whole digit loses the top bar of a 5, the
    # middle arm of a 3 and the hole of a 6.
    ridge = (grey - 0.8 * gaussian_filter(grey, sigma=9) > 0.1) & (grey > 0.15)
    skeleton = skeletonize(ridge)  # type: ignore[no-untyped-call]
    distance = distance_transform_edt(~skeleton).astype(np.float32)
    rows, columns = np.nonzero(grey > _INK)
    y, x = center_of_mass(grey)
    return Stroke(
        grey=grey,
        distance=distance,
        length=float(max(np.ptp(rows), np.ptp(columns)) + 1),
        centre=(x + 0.5, y + 0.5),
    )


def with_fields(grey: Floats, distance: Floats) -> Stroke:
    """Returns the stroke of these fields, whose box and centre are those of its ink."""
    rows, columns = np.nonzero(grey > _INK)
    if not len(rows):
        rows, columns = np.nonzero(grey == grey.max())
    weights = grey / grey.sum()
    y, x = (weights.sum(1) @ np.arange(len(grey))), (weights.sum(0) @ np.arange(grey.shape[1]))
    length = float(max(np.ptp(rows), np.ptp(columns)) + 1)
    return Stroke(grey, distance, length, (float(x) + 0.5, float(y) + 0.5))


def resample(
    field: Floats,
    *,
    size: tuple[int, int],
    source: tuple[float, float],
    target: tuple[float, float],
    scale: float,
    angle: float = 0.0,
    outside: float = 0.0,
) -> Floats:
    """Resamples the field on another grid so that its point `source` (x, y) becomes `target`.

    `size` is width and height, `scale` is in new pixels per old one, `angle` in radians clockwise.
    """
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    (x, y), (u, v) = source, target
    inverse = (cos, sin, x - cos * u - sin * v, -sin, cos, y + sin * u - cos * v)
    picture = Image.fromarray(field).transform(
        size, Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR, fillcolor=outside
    )
    return np.asarray(picture)


def stroke_fields(source: Stroke) -> Floats:
    """Returns grey and distance, 2×64×64: the square at twice its size, distance in its pixels."""
    size, middle = (2 * DIGIT_SIZE, 2 * DIGIT_SIZE), (float(DIGIT_SIZE), float(DIGIT_SIZE))
    scale = 2 * DIGIT_BOX / source.length
    far = float(source.distance.max())

    def centred(field: Floats, outside: float) -> Floats:
        return resample(
            field, size=size, source=source.centre, target=middle, scale=scale, outside=outside
        )

    return np.stack([centred(source.grey, 0), centred(source.distance, far) * scale / 2])


@cache  # 3 ms each; a build needs a few, training all of them
def _row_fields(row: int) -> Floats:
    digits, _ = data_set()
    return stroke_fields(stroke(digits[row]))


def _rows_fields(rows: Integers) -> Floats:
    return np.stack([_row_fields(int(row)) for row in rows])


def fields(rows: Integers) -> tuple[Tensor, Tensor]:
    """Returns the input of `augment`, N×2×64×64, and the labels, N."""
    import torch

    _, labels = data_set()
    return torch.from_numpy(_rows_fields(rows)), torch.from_numpy(labels[rows])


def clean(rows: Integers) -> npt.NDArray[np.uint8]:
    """Returns the digits without augmentation, N×32×32×1, 0 paper, 255 ink."""
    fine = _rows_fields(rows)[:, 0]  # N×64×64
    quarters = [fine[:, y::2, x::2] for y in (0, 1) for x in (0, 1)]
    grey: Floats = np.stack(quarters).sum(axis=0) / 4  # N×32×32
    grey = grey / grey.max(axis=(1, 2), keepdims=True)
    pixels: npt.NDArray[np.uint8] = (grey * 255).round().astype(np.uint8)
    return pixels[..., np.newaxis]


def network_input(ink: Tensor) -> Tensor:
    """Normalises pixels in 0..1 for the first layer; an exported graph does the same with bytes."""
    return (ink - DIGIT_MEAN) / DIGIT_STD


AUGMENTATIONS = ("affine", "elastic", "stroke")  # moved and turned, bent, of another width


def augment(
    fields: Tensor, random: torch.Generator, omitted: Collection[str] = frozenset()
) -> Tensor:
    """Draws each digit in another handwriting, N×1×32×32 in 0 (paper) to 1 (ink).

    The ranges were tuned on drawn pictures of held-out digits. Without those of AUGMENTATIONS that
    are `omitted`, the others draw the same numbers.
    """

    import torch
    from torch.nn import functional

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(fields), 1, 1, 1, generator=random)

    warped = functional.grid_sample(
        fields, _warp(len(fields), random, omitted), padding_mode="border", align_corners=False
    )
    grey, distance = warped[:, :1], warped[:, 1:]
    level = uniform(0.25, 0.6)
    width = torch.minimum(uniform(0.25, 1), 2 * level)  # wider, and the paper would turn grey
    marker = ((grey - level) / width + 0.5).clamp(0, 1)
    radius, softness = uniform(0.6, 2.6), uniform(0.9, 1.6)  # pixels
    pen = ((radius - distance) / softness + 0.5).clamp(0, 1)
    style = uniform(0, 1)
    if "stroke" in omitted:
        style = torch.ones_like(style)
    ink = torch.where(style < 0.45, pen, torch.where(style < 0.75, marker, grey))
    noise = torch.randn(ink.shape, generator=random) * uniform(0, 0.05)
    return (ink * uniform(0.7, 1) + noise).clamp(0, 1)


def _warp(count: int, random: torch.Generator, omitted: Collection[str]) -> Tensor:
    """Returns the source of each pixel, N×32×32×2 in -1..1: rotated, stretched, moved and bent."""

    import torch
    from torch.nn import functional

    def uniform(limit: float) -> Tensor:
        return limit * (2 * torch.rand(count, generator=random) - 1)

    angle, shear = uniform(math.radians(15)), uniform(0.2)
    scale, aspect = uniform(0.16).exp(), uniform(0.1).exp()
    cos, sin = angle.cos() * scale, angle.sin() * scale
    x_row = [cos * aspect, (shear * cos - sin) * aspect, uniform(2 / 16)]  # 2 pixels; 16 are 1
    y_row = [sin / aspect, (shear * sin + cos) / aspect, uniform(2 / 16)]
    matrix = torch.stack([torch.stack(x_row, dim=1), torch.stack(y_row, dim=1)], dim=1)  # N×2×3
    if "affine" in omitted:
        matrix = torch.eye(2, 3).expand(count, 2, 3)
    grid = functional.affine_grid(matrix, [count, 1, DIGIT_SIZE, DIGIT_SIZE], align_corners=False)
    bends = 0.035 * torch.randn(count, 2, 5, 5, generator=random)
    if "elastic" in omitted:
        bends = torch.zeros_like(bends)
    bends = functional.interpolate(
        bends, size=(DIGIT_SIZE, DIGIT_SIZE), mode="bicubic", align_corners=True
    )
    return grid + bends.permute(0, 2, 3, 1)
