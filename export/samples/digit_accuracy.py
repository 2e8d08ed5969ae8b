"""Measures how many unseen digits a network reads correctly: from the data set, and drawn by hand.

Both are measured on bytes as the network receives them from the gateway. The drawn digits go
through the gateway's own preprocessing, and a picture that it rejects counts as wrong.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from convoy.v1 import classifier_pb2 as pb
from export.samples.digits import clean, data_set, network_input
from export.samples.drawn_digits import drawn_digits
from export.samples.gateway_preprocessing import prepare

if TYPE_CHECKING:
    from torch import Tensor, nn

    from export.samples.digits import Integers
    from export.samples.images import Pixels

MEASURING_SEED, TEMPERING_SEED = 2026, 7  # for export/samples/drawn_digits.py


def scores(network: nn.Module, pixels: Pixels) -> Tensor:
    """Returns the logits, N×10, for bytes as the gateway sends them, N×32×32×1."""
    with torch.inference_mode():
        return network(network_input(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255))  # type: ignore[no-any-return]


def unfamiliar_scores(network: nn.Module, logits: Tensor) -> Tensor:
    """Returns how unfamiliar each picture is, N values from 0 to 1, for its logits, N×10."""
    with torch.inference_mode():
        # mypy takes an attribute of a module for a tensor.
        score: Tensor = network.unfamiliar(logits)  # type: ignore[operator]
    return score[:, 0]


def count_correct(network: nn.Module, pixels: Pixels, labels: Integers) -> int:
    """Returns how many of the pictures, N×32×32×1, the network classifies correctly."""
    return int((scores(network, pixels).argmax(1).numpy() == labels).sum())


def measure_rows(network: nn.Module, rows: Integers) -> dict[str, int]:
    """Returns the correct answers and the total for rows of the data set."""
    labels = data_set()[1][rows]
    return {"correct": count_correct(network, clean(rows), labels), "total": len(rows)}


def prepare_drawn_digits(
    preprocessing: pb.Preprocessing, seed: int
) -> tuple[Pixels, Integers, int]:
    """Returns the drawn digits that the gateway accepts, preprocessed, N×32×32×1, with their
    labels.

    The last value is the number of digits that were drawn.
    """
    return _prepare_drawn_digits(preprocessing.SerializeToString(), seed)


@cache
def _prepare_drawn_digits(preprocessing: bytes, seed: int) -> tuple[Pixels, Integers, int]:
    pictures, labels = zip(*drawn_digits(seed), strict=True)
    planes = prepare(pictures, pb.Preprocessing.FromString(preprocessing))
    accepted = [number for number, plane in enumerate(planes) if plane is not None]
    pixels = np.stack([plane for plane in planes if plane is not None])
    return pixels, np.array(labels)[accepted], len(planes)
