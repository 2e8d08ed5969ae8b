"""What a trained network makes of pictures that no training saw.

All are measured on bytes as the network receives them from the gateway, and a picture that the
gateway rejects counts as wrong.

    scikit-learn   its held-out 360, as they are
    MNIST          the held-out fifth, as 28×28 PNG files
    drawn          both again, drawn by pen and marker on large uneven sheets
    none of these  letters of a font, scribbles and two digits at once, of other generators than
                   the training's
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from export.catalog import CATALOG
from export.samples import digits, mnist
from export.samples.digit_accuracy import (
    count_correct,
    measure_rows,
    prepare_drawn_digits,
    scores,
    unfamiliar_scores,
)
from export.samples.digits import Integers
from export.samples.drawn_digits import draw
from export.samples.gateway_preprocessing import prepare
from export.samples.images import Pixels
from export.samples.nondigits import AMBIGUOUS, font_letters, measuring_nondigits

DRAWING_SEED = 2026
DRAWN_ROWS = 800  # of MNIST's held-out digits: each costs some 20 ms
DOUBTED = 0.01  # the share of held-out digits that the threshold of `unfamiliar` doubts
ECE_BINS = 15
PREPROCESSING = CATALOG["lenet5"].preprocessing  # that of all digit networks


class Accepted(NamedTuple):
    """What the gateway made of pictures, and how many there were."""

    pixels: Pixels  # N×32×32×1, of those that it accepts
    labels: Integers  # N
    total: int


def accept(pictures: list[bytes], labels: Integers) -> Accepted:
    planes = prepare(pictures, PREPROCESSING)
    kept = [number for number, plane in enumerate(planes) if plane is not None]
    pixels = [plane for plane in planes if plane is not None]
    stacked = np.stack(pixels) if pixels else np.empty((0, 32, 32, 1), np.uint8)
    return Accepted(stacked, labels[kept], len(planes))


class HeldOut(NamedTuple):
    """MNIST's held-out digits as the gateway prepares them, in two halves.

    The temperature is fitted to the first, so that the calibration of the second says how well it
    serves digits that it was not fitted to.
    """

    tempering: Accepted
    plain: Accepted
    drawn: Accepted  # of `plain`, on large sheets


def held_out(handwritten: mnist.Digits) -> HeldOut:
    rows = mnist.split(handwritten.labels).held_out
    tempering, rows = rows[1::2], rows[::2]
    random = np.random.default_rng(DRAWING_SEED)
    chosen = rows[:: max(1, len(rows) // DRAWN_ROWS)][:DRAWN_ROWS]
    drawn = [
        draw(mnist.stroke(handwritten.images[row]), bool(number % 2), random)
        for number, row in enumerate(chosen)
    ]
    return HeldOut(
        tempering=accept_rows(handwritten, tempering),
        plain=accept_rows(handwritten, rows),
        drawn=accept(drawn, handwritten.labels[chosen]),
    )


def accept_rows(handwritten: mnist.Digits, rows: Integers) -> Accepted:
    pictures = [mnist.png(image) for image in handwritten.images[rows]]
    return accept(pictures, handwritten.labels[rows])


def measure(network: nn.Module, mnist_digits: HeldOut | None) -> list[dict[str, Any]]:
    """The manifest's entries: what was measured, how many were right, and of how many."""
    pixels, labels, total = prepare_drawn_digits(PREPROCESSING, DRAWING_SEED)
    entries = [
        {
            "measured": "top-1, held-out fifth of scikit-learn's load_digits (random, stratified)",
            **measure_rows(network, digits.random_fifth().held_out),
        },
        {
            "measured": "top-1, those held-out digits drawn by pen and marker, both polarities",
            **count(network, Accepted(pixels, labels, total)),
        },
    ]
    if mnist_digits is not None:
        entries += [
            {
                "measured": "top-1, held-out fifth of the MNIST digits, as 28×28 pictures",
                **count(network, mnist_digits.tempering, mnist_digits.plain),
            },
            {
                "measured": "top-1, held-out MNIST digits drawn by pen and marker",
                **count(network, mnist_digits.drawn),
            },
        ]
    return entries


def count(network: nn.Module, *parts: Accepted) -> dict[str, int]:
    return {
        "correct": sum(count_correct(network, part.pixels, part.labels) for part in parts),
        "total": sum(part.total for part in parts),
    }


def calibration_error(logits: Tensor, labels: Integers) -> float:
    """The expected calibration error, of 15 bins (Guo et al. 2017, section 2)."""
    confidence, answers = logits.softmax(1).max(1)
    right = answers.numpy() == labels
    bins = np.minimum((confidence.numpy() * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = [
        abs(right[bins == each].mean() - confidence.numpy()[bins == each].mean())
        * (bins == each).mean()
        for each in np.unique(bins)
    ]
    return round(float(sum(gaps)), 4)


# ---------------------------------------------------------------- none of these


@cache
def nondigits() -> dict[str, Accepted]:
    """Pictures of no digit, by their kind, and letters that many write like digits."""
    kinds = measuring_nondigits()
    kinds["ambiguous letters"] = font_letters(AMBIGUOUS)
    return {kind: accept(pictures, np.full(len(pictures), -1)) for kind, pictures in kinds.items()}


def measure_unfamiliar(network: nn.Module, familiar: list[Pixels]) -> dict[str, Any]:
    """The threshold that doubts 1 % of the held-out digits, and the share of each kind it catches.

    A picture that the gateway rejects is caught. `curve` has the share of all kinds but the
    ambiguous letters for other shares of digits doubted.
    """
    known = np.sort(np.concatenate([_unfamiliar(network, pixels) for pixels in familiar]))
    kinds = nondigits()
    unknown = {kind: _unfamiliar(network, accepted.pixels) for kind, accepted in kinds.items()}
    judged = [kind for kind in kinds if kind != "ambiguous letters"]

    def caught(kind: str, threshold: float) -> int:
        rejected = kinds[kind].total - len(unknown[kind])
        return int((unknown[kind] > threshold).sum()) + rejected

    def share(doubted: float) -> float:
        threshold = float(np.quantile(known, 1 - doubted))
        total = sum(kinds[kind].total for kind in judged)
        return round(sum(caught(kind, threshold) for kind in judged) / total, 4)

    threshold = float(np.quantile(known, 1 - DOUBTED))
    return {
        "threshold": round(threshold, 6),
        "doubted": DOUBTED,
        "caught": {
            kind: {
                "caught": caught(kind, threshold),
                "total": kinds[kind].total,
                "rejected": kinds[kind].total - len(unknown[kind]),
            }
            for kind in kinds
        },
        "curve": {str(doubted): share(doubted) for doubted in (0.002, 0.005, 0.01, 0.02, 0.05)},
    }


def _unfamiliar(network: nn.Module, pixels: Pixels) -> np.ndarray[Any, np.dtype[np.float32]]:
    return unfamiliar_scores(network, scores(network, pixels)).numpy()
