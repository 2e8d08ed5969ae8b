"""Handwritten digits: the data set, its parts, and the one picture that the networks see.

The data are scikit-learn's `load_digits`: 1,797 digits of 8×8 pixels. Training and serving both see
a digit as light ink on dark paper in a square of 32 pixels, its longest side 20 pixels, its centre
of mass in the middle. `server/preprocessing/digit.py` makes that square from a picture; here it is
made from the data set, and drawn anew at each use: turned, bent, and in another hand.

A hand is what 8×8 pixels do not tell. So each digit is kept as two fields on a finer grid: its
grey, whose levels give marker strokes, and the distance to its skeleton, whose levels give pen
strokes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

SIZE = 32  # pixels, the side of the square
BOX = 20  # pixels, the longest side of the digit in it
# Applied in the graph, to pixels in 0..1: paper becomes -0.1 and ink 1.175, the levels of LeNet-5's
# paper (section II.B), which give inputs a mean near 0 and a variance near 1.
MEAN = 0.1 / 1.275
STD = 1 / 1.275

FINE = 12  # grid points of the fine grid to a pixel of the data set
_INK = 0.42  # of the darkest: what counts as ink where a digit's box is measured

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


class Part(NamedTuple):
    """Rows of the data set: what to train on, what to measure on."""

    train: Integers
    held_out: Integers


@cache
def data_set() -> tuple[Floats, Integers]:
    """All digits, N×8×8 in 0 (paper) to 1 (ink), and their labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)


def random_fifth() -> Part:
    """360 digits held out, 35 to 37 a class; their writers surely wrote in the other part too."""
    from sklearn.model_selection import train_test_split

    _, labels = data_set()
    rows = np.arange(len(labels))
    return Part(*train_test_split(rows, test_size=360, stratify=labels, random_state=0))


def contiguous_fifths() -> list[Part]:
    """Each fifth of the rows held out in turn: harder, since rows seem to lie by writer."""
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
    """The fields of one digit of 8×8 pixels."""
    from scipy.ndimage import center_of_mass, distance_transform_edt, gaussian_filter
    from skimage.morphology import skeletonize

    padded = np.pad(digit, 1)
    side = len(padded) * FINE
    fine = Image.fromarray(padded).resize((side, side), Image.Resampling.BICUBIC)
    grey = np.clip(np.asarray(fine) / np.asarray(fine).max(), 0, 1)
    # Against the mean around it: one threshold for the whole digit loses the top bar of a 5, the
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
    """The field on another grid, where its point `source` (x, y) comes to lie on `target`.

    `size` is width and height, `scale` in new pixels an old one, `angle` in radians
    clockwise.
    """
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    (x, y), (u, v) = source, target
    inverse = (cos, sin, x - cos * u - sin * v, -sin, cos, y + sin * u - cos * v)
    picture = Image.fromarray(field).transform(
        size, Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR, fillcolor=outside
    )
    return np.asarray(picture)


def _fields(digit: Floats) -> Floats:
    """Grey and distance, 2×64×64: the square at twice its size, distance in its pixels."""
    source = stroke(digit)
    size, middle = (2 * SIZE, 2 * SIZE), (float(SIZE), float(SIZE))
    scale = 2 * BOX / source.length
    far = float(source.distance.max())

    def centred(field: Floats, outside: float) -> Floats:
        return resample(
            field, size=size, source=source.centre, target=middle, scale=scale, outside=outside
        )

    return np.stack([centred(source.grey, 0), centred(source.distance, far) * scale / 2])


@cache  # a build needs few, training all of them: 3 ms each
def _fields_of(row: int) -> Floats:
    digits, _ = data_set()
    return _fields(digits[row])


def _fields_at(rows: Integers) -> Tensor:
    return torch.from_numpy(np.stack([_fields_of(int(row)) for row in rows]))


def fields(rows: Integers) -> tuple[Tensor, Tensor]:
    """What `augment` draws from, N×2×64×64, and the labels, N."""
    _, labels = data_set()
    return _fields_at(rows), torch.from_numpy(labels[rows])


def clean(rows: Integers) -> npt.NDArray[np.uint8]:
    """The digits as the data set has them, N×32×32×1, 0 paper, 255 ink."""
    grey = functional.avg_pool2d(_fields_at(rows)[:, :1], 2)  # N×1×32×32
    grey = grey / grey.amax(dim=(1, 2, 3), keepdim=True)
    return (grey * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def held_out() -> tuple[npt.NDArray[np.uint8], Integers]:
    """The 360 digits that no shipped network has seen, as `clean` gives them, and their labels."""
    rows = random_fifth().held_out
    return clean(rows), data_set()[1][rows]


def network_input(ink: Tensor) -> Tensor:
    """What the first layer sees of pixels in 0..1; an exported graph does the same to bytes."""
    return (ink - MEAN) / STD


def augment(fields: Tensor, random: torch.Generator) -> Tensor:
    """Each digit in another hand, N×1×32×32 in 0 (paper) to 1 (ink).

    The ranges were tuned on drawn pictures of held-out digits; the stroke's width matters most.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(fields), 1, 1, 1, generator=random)

    warped = functional.grid_sample(
        fields, _warp(len(fields), random), padding_mode="border", align_corners=False
    )
    grey, distance = warped[:, :1], warped[:, 1:]
    level = uniform(0.25, 0.6)
    width = torch.minimum(uniform(0.25, 1), 2 * level)  # wider, and the paper would turn grey
    marker = ((grey - level) / width + 0.5).clamp(0, 1)
    radius, softness = uniform(0.6, 2.6), uniform(0.9, 1.6)  # pixels
    pen = ((radius - distance) / softness + 0.5).clamp(0, 1)
    style = uniform(0, 1)
    ink = torch.where(style < 0.45, pen, torch.where(style < 0.75, marker, grey))
    noise = torch.randn(ink.shape, generator=random) * uniform(0, 0.05)
    return (ink * uniform(0.7, 1) + noise).clamp(0, 1)


def _warp(count: int, random: torch.Generator) -> Tensor:
    """Where each pixel comes from, N×32×32×2 in -1..1: turned, stretched, moved and bent."""

    def uniform(limit: float) -> Tensor:
        return limit * (2 * torch.rand(count, generator=random) - 1)

    angle, shear = uniform(math.radians(15)), uniform(0.2)
    scale, aspect = uniform(0.16).exp(), uniform(0.1).exp()
    cos, sin = angle.cos() * scale, angle.sin() * scale
    x_row = [cos * aspect, (shear * cos - sin) * aspect, uniform(2 / 16)]  # 2 of the 16 pixels to 1
    y_row = [sin / aspect, (shear * sin + cos) / aspect, uniform(2 / 16)]
    matrix = torch.stack([torch.stack(x_row, dim=1), torch.stack(y_row, dim=1)], dim=1)  # N×2×3
    grid = functional.affine_grid(matrix, [count, 1, SIZE, SIZE], align_corners=False)
    bends = 0.035 * torch.randn(count, 2, 5, 5, generator=random)
    bends = functional.interpolate(bends, size=(SIZE, SIZE), mode="bicubic", align_corners=True)
    return grid + bends.permute(0, 2, 3, 1)
