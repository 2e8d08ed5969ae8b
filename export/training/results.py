"""Trains a network, measures it, and writes NAME.pth, NAME.json and NAME.curve.json."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from export.catalog import CATALOG
from export.progress import SILENT, Reporter
from export.samples import mnist
from export.samples.digit_accuracy import TEMPERING_SEED, prepare_drawn_digits, scores
from export.samples.digits import clean, random_fifth
from export.training.data import training_set
from export.training.download import fetch_mnist, mnist_downloads
from export.training.fit import Epoch, Trained, fit, temper
from export.training.measure import (
    PREPROCESSING,
    Accepted,
    HeldOut,
    calibration_error,
    held_out,
    measure,
    measure_unfamiliar,
)
from export.training.recipes import RECIPES

STEPS = 3  # of train_and_measure


def load_digits(path: Path | None, rows: Literal["shipped", "all"]) -> mnist.Digits:
    """MNIST's training digits, from a file or the mirror.

    Raises:
        OSError: the file cannot be read.
        InvalidDigits: it is not one of digits.
        DownloadError: MNIST's own files cannot be downloaded.
    """
    read = mnist.read_digits(path or fetch_mnist(mnist_downloads()))
    is_npz = path is not None and path.suffix == ".npz"
    return read if is_npz or rows == "all" else mnist.shipped_rows(read)


def train_and_measure(
    name: str,
    digits: mnist.Digits,
    seed: int,
    epochs: int | None,
    output: Path,
    reporter: Reporter = SILENT,
) -> dict[str, Any]:
    """Trains, measures and writes; returns the content of NAME.json."""
    recipe = RECIPES[name] if epochs is None else replace(RECIPES[name], epochs=epochs)
    reporter.step("preparing the digits")
    data = training_set(digits, drawings=recipe.drawings)
    reporter.step("training")

    def epoch_done(point: Epoch) -> None:
        reporter.progress("epochs", point.epoch, recipe.epochs)

    trained = fit(CATALOG[name].build, recipe, data, seed, epoch_done)
    reporter.step("measuring")
    return finish(name, trained, seed, asdict(recipe), digits, output)


def finish(
    name: str,
    trained: Trained,
    seed: int,
    recipe: dict[str, Any],
    digits: mnist.Digits,
    output: Path,
) -> dict[str, Any]:
    """Divides by the temperature, measures and writes a trained network."""
    network = trained.network
    measured = held_out(digits)
    before = _calibration(network, measured)
    temperature = fit_temperature(network, measured.tempering)
    weights = io.BytesIO()
    torch.save(network.state_dict(), weights)
    facts = {
        "network": name,
        "trained_on": "digits",
        "data": {
            "MNIST": "LeCun, Cortes, Burges; CC BY-SA 3.0",
            "MNIST digits": len(mnist.split(digits.labels).train),
            "scikit-learn digits": len(random_fifth().train),
            "drawings of those": 2 * len(random_fifth().train) if recipe["drawings"] else 0,
        },
        "sha256": hashlib.sha256(weights.getvalue()).hexdigest(),
        "seed": seed,
        "recipe": recipe,
        "temperature": temperature,
        "torch": torch.__version__.partition("+")[0],
        "calibration_error_before": before,
        **_measure(network, measured),
    }
    (output / f"{name}.pth").write_bytes(weights.getvalue())
    _write_curve(output / f"{name}.curve.json", trained.curve)
    _write_facts(output / f"{name}.json", facts)
    return facts


def remeasure(name: str, digits: mnist.Digits, output: Path) -> dict[str, Any]:
    """Measures the existing weights again, and writes the figures to NAME.json."""
    network = CATALOG[name].build().eval()
    network.load_state_dict(torch.load(output / f"{name}.pth", weights_only=True))
    facts: dict[str, Any] = json.loads((output / f"{name}.json").read_text(encoding="utf-8"))
    facts |= _measure(network, held_out(digits))
    _write_facts(output / f"{name}.json", facts)
    return facts


def fit_temperature(network: nn.Module, handwritten: Accepted) -> float:
    """Fits to held-out digits of both data sets: MNIST's as they are, scikit-learn's drawn."""
    # Other drawings than those that accuracy is measured on.
    pixels, labels, _ = prepare_drawn_digits(PREPROCESSING, TEMPERING_SEED)
    logits = scores(network, np.concatenate([handwritten.pixels, pixels])).clone()
    return temper(network, logits, torch.from_numpy(np.concatenate([handwritten.labels, labels])))


def _measure(network: nn.Module, measured: HeldOut) -> dict[str, Any]:
    digits = [measured.tempering.pixels, measured.plain.pixels]
    familiar = [*digits, clean(random_fifth().held_out)]
    return {
        "accuracy": measure(network, measured),
        "calibration_error": _calibration(network, measured),
        "unfamiliar": measure_unfamiliar(network, familiar),
    }


def _calibration(network: nn.Module, measured: HeldOut) -> dict[str, float]:
    """The expected calibration error on what no temperature was fitted to."""
    return {
        kind: calibration_error(scores(network, pictures.pixels), pictures.labels)
        for kind, pictures in (("plain", measured.plain), ("drawn", measured.drawn))
    }


def _write_facts(path: Path, facts: dict[str, Any]) -> None:
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _write_curve(path: Path, curve: list[Epoch]) -> None:
    """Writes one line per epoch."""
    lines = ",\n".join(json.dumps(point._asdict()) for point in curve)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
