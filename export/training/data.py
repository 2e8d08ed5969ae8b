"""What a digit network is trained on: two data sets of digits, and pictures of what is no digit.

Everything is kept as fields (export/samples/digits.py), from which each epoch draws other pictures.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from export.catalog import CATALOG
from export.samples import digits, mnist
from export.samples.digits import Floats, Integers
from export.samples.drawn_digits import draw
from export.samples.gateway_preprocessing import prepare
from export.samples.nondigits import training_nondigits

NONDIGITS = 4_000
NONDIGITS_SEED = 0
DRAWING_SEED = 1  # of the sheets with dark ink; those with light ink have the next
NONE = 10  # the class of what is no digit, after the ten


class TrainingSet(NamedTuple):
    """N pictures as fields: grey of 255, and distance to the skeleton in sixteenths of a pixel."""

    fields: Tensor  # uint8, N×2×64×64
    labels: Tensor  # N, 0 to 9
    nondigits: Tensor  # uint8, M×2×64×64; M may be 0


def scikit_learn(rows: Integers) -> TrainingSet:
    """Rows of scikit-learn's digits, without anything that is no digit."""
    fields, labels = digits.fields(rows)
    return TrainingSet(
        _pack(fields.numpy()), labels, torch.empty((0, 2, 64, 64), dtype=torch.uint8)
    )


def handwritten_digits(handwritten: mnist.Digits) -> TrainingSet:
    """The training part of MNIST's digits, without anything that is no digit."""
    fields, labels = _training_part(handwritten)
    return TrainingSet(fields, labels, torch.empty((0, 2, 64, 64), dtype=torch.uint8))


def training_set(handwritten: mnist.Digits | None, *, drawings: bool = True) -> TrainingSet:
    """What the shipped networks are trained on: the training parts of both data sets.

    `handwritten` are MNIST's digits; None trains on scikit-learn's alone. With `drawings`, these
    are also drawn on sheets: 8×8 pixels do not show what the gateway makes of a pen's strokes. A
    picture that the gateway rejects is left out.
    """
    rows = digits.random_fifth().train
    known = scikit_learn(rows)
    images = np.empty((0, mnist.SIDE, mnist.SIDE), np.uint8)
    parts = [(known.fields, known.labels)]
    if drawings:
        parts += [drawn(rows, inverted=inverted) for inverted in (False, True)]
    if handwritten is not None:
        images = handwritten.images[mnist.split(handwritten.labels).train]
        parts.insert(0, _training_part(handwritten))
    strokes = training_nondigits(images, NONDIGITS, NONDIGITS_SEED)
    return TrainingSet(
        fields=torch.cat([fields for fields, _ in parts]),
        labels=torch.cat([labels for _, labels in parts]),
        nondigits=_pack(np.stack([digits.stroke_fields(each) for each in strokes])),
    )


def _training_part(handwritten: mnist.Digits) -> tuple[Tensor, Tensor]:
    """Fields and labels."""
    chosen = mnist.split(handwritten.labels).train
    pictures = [mnist.png(image) for image in handwritten.images[chosen]]
    return prepared_fields(pictures, handwritten.labels[chosen])


def drawn(rows: Integers, *, inverted: bool) -> tuple[Tensor, Tensor]:
    """Rows of scikit-learn's digits, each drawn once as export/samples/drawn_digits.py does it."""
    images, labels = digits.data_set()
    random = np.random.default_rng(DRAWING_SEED + inverted)
    pictures = [draw(digits.stroke(images[row]), inverted, random) for row in rows]
    return prepared_fields(pictures, labels[rows])


def prepared_fields(pictures: list[bytes], labels: Integers) -> tuple[Tensor, Tensor]:
    """The fields and labels of the pictures that the gateway accepts, as it prepares them."""
    planes = prepare(pictures, CATALOG["lenet5"].preprocessing)
    accepted = [number for number, plane in enumerate(planes) if plane is not None]
    fields = [
        mnist.plane_fields((plane[:, :, 0] / 255).astype(np.float32))
        for plane in planes
        if plane is not None
    ]
    return _pack(np.stack(fields)), torch.from_numpy(labels[accepted])


def _pack(fields: Floats) -> Tensor:
    scale = np.array([255, 16], np.float32)[:, np.newaxis, np.newaxis]
    return torch.from_numpy(np.clip(fields * scale, 0, 255).round().astype(np.uint8))


def unpack(fields: Tensor) -> Tensor:
    """The fields as `augment` takes them, float32."""
    return fields.float() / torch.tensor([255.0, 16.0])[:, None, None]
