"""Small classifiers and others, as ONNX files that torch writes."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export.checkpoints.random_weights import initialise
from export.samples.images import CALIBRATION_SEED, crops

SIDE, CLASSES = 32, 7
LABELS = tuple("abcdefg")


def classifier() -> nn.Module:
    """Normalised N×3×32×32 to logits N×7; pictures differ in their answers."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    ).eval()
    images = torch.from_numpy(crops(16, CALIBRATION_SEED, SIDE).pixels).permute(0, 3, 1, 2)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        initialise(network, images / 255)
    return network


class FromPixels(nn.Module):
    """uint8 N×32×32×3, blue first, to probabilities."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        red_first = pixels.flip(3).permute(0, 3, 1, 2)
        logits: Tensor = self.network(red_first.float() / 255)
        return logits.softmax(1)


class ChannelsLast(nn.Module):
    """The same as Keras has it: maps N×h×w×F, weights F×K, a bias that is added."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        *layers, _, _, last = network.children()
        self.features = nn.Sequential(*layers)
        self.weights = nn.Parameter(last.get_parameter("weight").detach().T.contiguous())
        self.bias = nn.Parameter(last.get_parameter("bias").detach())

    def forward(self, x: Tensor) -> Tensor:
        maps = self.features(x).permute(0, 2, 3, 1)
        logits: Tensor = maps.mean((1, 2)) @ self.weights + self.bias
        return logits


def export(network: nn.Module, path: Path, example: Tensor, **options: Any) -> Path:
    """As torch's older exporter writes it, of a fixed batch size unless the options say another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    named = {"input_names": ["x"], "output_names": ["y"], "dynamo": False, **options}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (example,), path, **named)
    return path


ANY_BATCH = {"dynamic_axes": {"x": {0: "n"}, "y": {0: "n"}}}


def planes(count: int) -> Tensor:
    return torch.zeros(count, 3, SIDE, SIDE)


def write_labels(path: Path) -> Path:
    path.write_text("".join(f"{label}\n" for label in LABELS))
    return path
