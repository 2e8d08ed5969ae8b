"""How many unseen digits a network reads right: of the data set, and drawn as people would.

Both are measured on bytes as the gateway serves them to the network; the drawn ones go through its
own preparation, where a picture that is refused counts as wrong.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from convoy.v1 import classifier_pb2 as pb
from export.samples.digits import clean, data_set, network_input, random_fifth
from export.samples.drawn_digits import drawn_digits
from export.samples.gateway_preprocessing import prepared

if TYPE_CHECKING:
    from torch import Tensor, nn

    from export.samples.digits import Integers
    from export.samples.images import Pixels

MEASURING_SEED, TEMPERING_SEED = 2026, 7  # of export/samples/drawn_digits.py


def accuracy(
    network: nn.Module, preprocessing: pb.Preprocessing, fifths: list[dict[str, int]]
) -> list[dict[str, Any]]:
    """What stands in the manifest: the usual measure, and two that are fairer to new hands.

    `fifths` holds what was right of each contiguous fifth; empty, and nothing is said of them.
    """
    pixels, labels, total = drawn(preprocessing, MEASURING_SEED)
    data = "of scikit-learn's load_digits"
    entries: list[dict[str, Any]] = [
        {
            "measured": f"top-1, held-out fifth {data} (random, stratified)",
            **correct_of_rows(network, random_fifth().held_out),
        },
        {
            "measured": "top-1, held-out digits drawn by pen and marker, both polarities",
            "correct": correct(network, pixels, labels),  # a picture that is refused is not right
            "total": total,
        },
    ]
    if fifths:
        worst = min(fifths, key=lambda fifth: fifth["correct"] / fifth["total"])
        entries.append(
            {"measured": f"top-1, worst contiguous fifth {data}, trained on the others", **worst}
        )
    return entries


def scores(network: nn.Module, pixels: Pixels) -> Tensor:
    """Logits, N×10, of the bytes that the network would be served, N×32×32×1."""
    with torch.inference_mode():
        return network(network_input(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255))  # type: ignore[no-any-return]


def correct(network: nn.Module, pixels: Pixels, labels: Integers) -> int:
    """How many of these pictures the network reads right."""
    return int((scores(network, pixels).argmax(1).numpy() == labels).sum())


def correct_of_rows(network: nn.Module, rows: Integers) -> dict[str, int]:
    """The same for rows of the data set, as a share."""
    labels = data_set()[1][rows]
    return {"correct": correct(network, clean(rows), labels), "total": len(rows)}


def drawn(preprocessing: pb.Preprocessing, seed: int) -> tuple[Pixels, Integers, int]:
    """What the gateway makes of the drawn digits that it accepts, N×32×32×1, and their labels.

    Last, how many were drawn.
    """
    return _drawn(preprocessing.SerializeToString(), seed)


@cache
def _drawn(preprocessing: bytes, seed: int) -> tuple[Pixels, Integers, int]:
    pictures, labels = zip(*drawn_digits(seed), strict=True)
    planes = prepared(pictures, pb.Preprocessing.FromString(preprocessing))
    accepted = [number for number, plane in enumerate(planes) if plane is not None]
    pixels = np.stack([plane for plane in planes if plane is not None])
    return pixels, np.array(labels)[accepted], len(planes)
