"""Trains a digit network that ships, and measures it.

    python export/train.py resnet20_digits --folds

writes to export/weights: resnet20_digits.pth, a state dict; resnet20_digits.json, the recipe and
the accuracy on unseen digits, which a build copies into the manifest; resnet20_digits.curve.json,
the course of the training.

The same command writes the same bytes, on one machine with one version of torch.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run by its path, not imported
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from export.bootstrap import continue_in_venv

    continue_in_venv()

import difflib
import hashlib
import io
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from convoy.terminal import lasting_output, print_error
from export.bootstrap import require_packages
from export.catalog import CATALOG
from export.files import TRAINED_WEIGHTS

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from export.samples.digits import Integers
    from export.samples.images import Pixels


@dataclass(frozen=True)
class TrainingRecipe:
    """Stochastic gradient descent on the cross entropy; each epoch redraws each digit once."""

    epochs: int
    rate: float  # the maximum: reached after two epochs, then down to 0 along a cosine
    batch: int = 64
    momentum: float = 0.9
    weight_decay: float = 5e-4
    channels_last: bool = True  # memory layout: reduces the time by a quarter to a third
    # Whether the logits are divided by a temperature at the end. Without batch norm a network is
    # overconfident on drawn digits; with it, the division gains nothing on unseen pictures.
    tempered: bool = False


# By the network's name in the catalog.
RECIPES = {
    "lenet5": TrainingRecipe(epochs=100, rate=0.02, batch=32, channels_last=False),
    "vgg_digits": TrainingRecipe(epochs=50, rate=0.02, tempered=True),
    "nin_digits": TrainingRecipe(epochs=40, rate=0.05),
    "inception_digits": TrainingRecipe(epochs=70, rate=0.05),
    "plain20_digits": TrainingRecipe(epochs=16, rate=0.05),
    "resnet20_digits": TrainingRecipe(epochs=16, rate=0.05),
}


class Epoch(NamedTuple):
    """A point of the curve: one pass over the training digits."""

    epoch: int  # from 1
    rate: float  # at its end
    loss: float  # mean cross entropy
    error: float  # 0 to 1; on redrawn pictures, in training mode, while the weights change


class Trained(NamedTuple):
    network: nn.Module
    curve: list[Epoch]


Folds = Annotated[
    bool,
    typer.Option(
        "--folds",
        help="Train five more times, each time without one contiguous fifth of the data, and "
        "record the worst result: what to expect for an unknown handwriting.",
    ),
]
Seed = Annotated[
    int, typer.Option(min=0, help="Seed of the initial weights, the order and the augmentation.")
]
Epochs = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Passes over the training digits; fewer for a quick try.",
        show_default="the recipe's",
    ),
]
Measure = Annotated[
    bool,
    typer.Option(
        "--measure",
        help="Do not train; measure the existing weights again, for example after a change of the "
        "gateway's preprocessing.",
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        file_okay=False,
        help="The folder for NAME.pth, NAME.json and NAME.curve.json.",
        show_default="export/weights",
    ),
]


def train(
    name: Annotated[str, typer.Argument(help=f"The network: {', '.join(RECIPES)}.")],
    folds: Folds = False,
    seed: Seed = 0,
    epochs: Epochs = None,
    measure: Measure = False,
    output: Output = TRAINED_WEIGHTS,
) -> None:
    """Train a digit network on scikit-learn's load_digits, and measure it on unseen digits.

    Examples:

        python export/train.py lenet5

        python export/train.py resnet20_digits --folds

        python export/train.py lenet5 --epochs 5 --output /tmp/weights
    """
    recipe = _find(name)
    require_packages()
    if epochs is not None:
        recipe = replace(recipe, epochs=epochs)
    try:
        output.mkdir(parents=True, exist_ok=True)
        facts = _remeasure(name, output) if measure else _train(name, recipe, seed, folds, output)
    except FileNotFoundError as error:
        sys.exit(f"There is no {error.filename} to measure: train without --measure first.")
    except OSError as error:
        sys.exit(f"Cannot write to {output}: {error.strerror}; choose another --output.")
    print(output / f"{name}.pth")
    for entry in facts["accuracy"]:
        share = entry["correct"] / entry["total"]
        print(f"  {entry['correct']} of {entry['total']} ({share:.1%}): {entry['measured']}")


def _find(name: str) -> TrainingRecipe:
    """Returns the recipe of that name. An unknown name is wrong usage: exit code 2."""
    if name in RECIPES:
        return RECIPES[name]
    near = difflib.get_close_matches(name.lower(), RECIPES, cutoff=0.4) or RECIPES
    print_error(f"No network called {name!r} is trained here: did you mean {' or '.join(near)}?")
    raise typer.Exit(2)


def _train(
    name: str, recipe: TrainingRecipe, seed: int, folds: bool, output: Path
) -> dict[str, Any]:
    """Trains, measures and writes; returns the content of NAME.json."""
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from export.samples.digit_accuracy import (
        TEMPERING_SEED,
        accuracy,
        measure_rows,
        prepare_drawn_digits,
    )
    from export.samples.digits import contiguous_fifths, random_fifth

    parts = [random_fifth(), *(contiguous_fifths() if folds else [])]
    build, preprocessing = CATALOG[name].build, CATALOG[name].preprocessing
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(f"Training {name}", total=len(parts) * recipe.epochs)
        (network, curve), *others = [
            fit(build, recipe, part.train, seed, lambda: progress.advance(task)) for part in parts
        ]
    temperature = 1.0
    if recipe.tempered:  # on other drawings than those for the accuracy
        temperature = temper(network, *prepare_drawn_digits(preprocessing, TEMPERING_SEED)[:2])
    weights = io.BytesIO()
    torch.save(network.state_dict(), weights)
    sha256 = hashlib.sha256(weights.getvalue()).hexdigest()
    fifths = [
        measure_rows(other.network, part.held_out)
        for other, part in zip(others, parts[1:], strict=True)
    ]
    fifths = fifths or _earlier_fifths(output / f"{name}.json", sha256)
    facts = {
        "network": name,
        "trained_on": "digits",
        "sha256": sha256,
        "seed": seed,
        "recipe": asdict(recipe),
        "temperature": temperature,
        "torch": torch.__version__.partition("+")[0],
        "accuracy": accuracy(network, preprocessing, fifths),
        "contiguous_fifths": fifths,
    }
    (output / f"{name}.pth").write_bytes(weights.getvalue())
    _write_curve(output / f"{name}.curve.json", curve)
    _write_facts(output / f"{name}.json", facts)
    return facts


def _remeasure(name: str, output: Path) -> dict[str, Any]:
    """Measures the existing weights again, and writes the figures to NAME.json."""
    import torch

    from export.samples.digit_accuracy import accuracy

    network = CATALOG[name].build().eval()
    network.load_state_dict(torch.load(output / f"{name}.pth", weights_only=True))
    facts: dict[str, Any] = json.loads((output / f"{name}.json").read_text(encoding="utf-8"))
    facts["accuracy"] = accuracy(network, CATALOG[name].preprocessing, facts["contiguous_fifths"])
    _write_facts(output / f"{name}.json", facts)
    return facts


def _write_facts(path: Path, facts: dict[str, Any]) -> None:
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _write_curve(path: Path, curve: list[Epoch]) -> None:
    """Writes one line per epoch."""
    lines = ",\n".join(json.dumps(point._asdict()) for point in curve)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def fit(
    build: Callable[[], nn.Module],
    recipe: TrainingRecipe,
    rows: Integers,
    seed: int,
    epoch_done: Callable[[], object] = lambda: None,
) -> Trained:
    """Trains a new network on these rows of the data set; returns it in evaluation mode."""
    import torch

    from export.samples.digits import fields

    torch.set_num_threads(1)  # more add in another order, and are no faster at this size
    torch.manual_seed(seed)  # the initial weights, and dropout
    random = torch.Generator().manual_seed(seed)
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    network = build().to(memory_format=layout)  # type: ignore[call-overload]
    pictures, labels = fields(rows)
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.rate, recipe.momentum, weight_decay=recipe.weight_decay
    )
    steps = math.ceil(len(rows) / recipe.batch)  # per epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: share_of_rate(step / steps, recipe.epochs)
    )
    curve = []
    for epoch in range(1, recipe.epochs + 1):
        loss, wrong = 0.0, 0
        for batch in torch.split(torch.randperm(len(rows), generator=random), recipe.batch):
            step = _step(network, optimizer, pictures[batch], labels[batch], random)
            schedule.step()
            loss, wrong = loss + step[0], wrong + step[1]
        rate = float(schedule.get_last_lr()[0])
        curve.append(
            Epoch(epoch, round(rate, 6), round(loss / len(rows), 4), round(wrong / len(rows), 4))
        )
        epoch_done()
    network.eval().to(memory_format=torch.contiguous_format)
    return Trained(network, curve)


def _step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    fields: Tensor,
    labels: Tensor,
    random: torch.Generator,
) -> tuple[float, int]:
    """Makes one step; returns the batch's summed loss, and its number of wrong answers."""
    from torch.nn.functional import cross_entropy

    from export.samples.digits import augment, network_input

    logits = network(network_input(augment(fields, random)))
    loss = cross_entropy(logits, labels)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item() * len(labels), int((logits.argmax(1) != labels).sum())


def share_of_rate(epoch: float, epochs: int) -> float:
    """Returns 0 to 1: linearly up over two epochs, then down to 0 along half a cosine."""
    if epoch < 2:
        return epoch / 2
    return 0.5 * (1 + math.cos(math.pi * (epoch - 2) / max(epochs - 2, 1)))


def temper(network: nn.Module, pixels: Pixels, labels: Integers) -> float:
    """Divides the logits by the temperature that maximises the likelihood; returns it.

    Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", 2017, arXiv
    1706.04599, section 4.2. The last layer's weights and bias are divided, so that the graph needs
    no additional operator; the order of the scores does not change.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from export.samples.digit_accuracy import scores

    with torch.inference_mode():
        logits, answers = scores(network, pixels), torch.from_numpy(labels)
        candidates = [step / 100 for step in range(50, 401)]
        temperature = min(candidates, key=lambda t: float(cross_entropy(logits / t, answers)))
        weight, bias = list(network.parameters())[-2:]  # of the last linear layer
        weight.div_(temperature)
        bias.div_(temperature)
    return temperature


def _earlier_fifths(facts_path: Path, sha256: str) -> list[dict[str, int]]:
    """Returns the figures of an earlier `--folds` if it had exactly the same weights; else none.

    The same bytes mean the same recipe, seed, code and torch, so the figures are still valid.
    """
    try:
        facts = json.loads(facts_path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return []
    fifths: list[dict[str, int]] = facts["contiguous_fifths"] if facts["sha256"] == sha256 else []
    return fifths


if __name__ == "__main__":
    with lasting_output():
        typer.run(train)
