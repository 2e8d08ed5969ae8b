"""Train a digit network that ships: digits → weights, and what was measured of them.

    python export/train.py resnet20_digits --folds

writes into export/weights: resnet20_digits.pth, a state dict; resnet20_digits.json, how it was
trained and how many unseen digits it reads right, figures that the builder copies into the
manifest; resnet20_digits.curve.json, how the training went.

The same command gives the same bytes, on one machine and one version of torch.
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

from export.bootstrap import require_packages
from export.catalog import CATALOG
from export.files import TRAINED_WEIGHTS

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from export.samples.digits import Integers
    from export.samples.images import Pixels


@dataclass(frozen=True)
class Recipe:
    """Cross entropy by stochastic gradient descent; each epoch sees each digit once, drawn anew."""

    epochs: int
    rate: float  # the highest: reached after two epochs, then down to 0 along a cosine
    batch: int = 64
    momentum: float = 0.9
    weight_decay: float = 5e-4
    channels_last: bool = True  # how pictures lie in memory: a quarter to a third quicker
    # Whether the logits are divided by a temperature in the end. Without batch norm a network is
    # too sure of drawn digits; with it the division gains nothing on pictures that it did not see.
    tempered: bool = False


# By the network's name in the catalog.
RECIPES = {
    "lenet5": Recipe(epochs=100, rate=0.02, batch=32, channels_last=False),
    "vgg_digits": Recipe(epochs=50, rate=0.02, tempered=True),
    "nin_digits": Recipe(epochs=40, rate=0.05),
    "inception_digits": Recipe(epochs=70, rate=0.05),
    "plain20_digits": Recipe(epochs=16, rate=0.05),
    "resnet20_digits": Recipe(epochs=16, rate=0.05),
}


class Epoch(NamedTuple):
    """A point of the curve: what one pass over the training digits showed."""

    epoch: int  # from 1
    rate: float  # at its end
    loss: float  # mean cross entropy
    error: float  # 0 to 1; of pictures drawn anew, in training mode, while the weights change


class Trained(NamedTuple):
    network: nn.Module
    curve: list[Epoch]


def train(
    name: Annotated[str, typer.Argument(help=f"The network: {', '.join(RECIPES)}.")],
    folds: Annotated[
        bool,
        typer.Option(
            "--folds",
            help="Train five times more, holding out each contiguous fifth of the data in turn, "
            "and record the worst: what to expect of a hand that it does not know.",
        ),
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the first weights, the order and the drawing.")
    ] = 0,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Times that each digit is seen; fewer for a quick try.",
            show_default="the recipe's",
        ),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Train nothing; measure the weights that are there anew, as after a change of "
            "the gateway's preparation.",
        ),
    ] = False,
    output: Annotated[
        Path,
        typer.Option(
            file_okay=False,
            help="The folder for NAME.pth, NAME.json and NAME.curve.json.",
            show_default="export/weights",
        ),
    ] = TRAINED_WEIGHTS,
) -> None:
    """Train a digit network on scikit-learn's load_digits; measure it on digits it has not seen.

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
        sys.exit(
            f"Cannot write to {output}: {error.strerror}; choose another folder with --output."
        )
    print(output / f"{name}.pth")
    for entry in facts["accuracy"]:
        share = entry["correct"] / entry["total"]
        print(f"  {entry['correct']} of {entry['total']} ({share:.1%}): {entry['measured']}")


def _find(name: str) -> Recipe:
    """The recipe of that name; a name that has none is wrong usage."""
    if name in RECIPES:
        return RECIPES[name]
    near = difflib.get_close_matches(name.lower(), RECIPES, cutoff=0.4) or RECIPES
    print(
        f"No network called {name!r} is trained here: did you mean {' or '.join(near)}?",
        file=sys.stderr,
    )
    raise typer.Exit(2)


def _train(name: str, recipe: Recipe, seed: int, folds: bool, output: Path) -> dict[str, Any]:
    """Train, measure and write; what was written into NAME.json."""
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
    if recipe.tempered:  # on other drawings than those that accuracy is measured on
        temperature = temper(network, *prepare_drawn_digits(preprocessing, TEMPERING_SEED)[:2])
    weights = io.BytesIO()
    torch.save(network.state_dict(), weights)
    sha256 = hashlib.sha256(weights.getvalue()).hexdigest()
    fifths = [
        measure_rows(other.network, part.held_out)
        for other, part in zip(others, parts[1:], strict=True)
    ]
    fifths = fifths or _fifths_before(output / f"{name}.json", sha256)
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
    """Measure the weights that are there, and put the figures into NAME.json."""
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
    """One line an epoch."""
    lines = ",\n".join(json.dumps(point._asdict()) for point in curve)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def fit(
    build: Callable[[], nn.Module],
    recipe: Recipe,
    rows: Integers,
    seed: int,
    epoch_done: Callable[[], object] = lambda: None,
) -> Trained:
    """A new network, trained on these rows of the data set, in evaluation mode."""
    import torch

    from export.samples.digits import fields

    torch.set_num_threads(1)  # more threads add in another order, and are no quicker at this size
    torch.manual_seed(seed)  # the first weights, and dropout
    random = torch.Generator().manual_seed(seed)
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    network = build().to(memory_format=layout)  # type: ignore[call-overload]
    pictures, labels = fields(rows)
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.rate, recipe.momentum, weight_decay=recipe.weight_decay
    )
    steps = math.ceil(len(rows) / recipe.batch)  # of an epoch
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
    """One step of descent; the batch's summed loss, and how many of it were read wrong."""
    from torch.nn.functional import cross_entropy

    from export.samples.digits import augment, network_input

    logits = network(network_input(augment(fields, random)))
    loss = cross_entropy(logits, labels)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item() * len(labels), int((logits.argmax(1) != labels).sum())


def share_of_rate(epoch: float, epochs: int) -> float:
    """0 to 1: up in a line over two epochs, then down to 0 along half a cosine."""
    if epoch < 2:
        return epoch / 2
    return 0.5 * (1 + math.cos(math.pi * (epoch - 2) / max(epochs - 2, 1)))


def temper(network: nn.Module, pixels: Pixels, labels: Integers) -> float:
    """Divide the logits by the temperature at which these answers are likeliest; return it.

    Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", 2017, arXiv
    1706.04599, section 4.2. The division goes into the last layer's weights and bias, so that a
    graph needs no step of its own; the order of the scores stays.
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


def _fifths_before(facts_path: Path, sha256: str) -> list[dict[str, int]]:
    """What an earlier `--folds` measured, if it came to the very same weights; else nothing.

    The same bytes mean the same recipe, seed, code and torch, so that the figures still hold.
    """
    try:
        facts = json.loads(facts_path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return []
    fifths: list[dict[str, int]] = facts["contiguous_fifths"] if facts["sha256"] == sha256 else []
    return fifths


if __name__ == "__main__":
    typer.run(train)
