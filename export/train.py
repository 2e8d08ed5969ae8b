"""Train a digit network that ships: digits → weights, and what was measured of them.

    python export/train.py lenet5 --folds

writes export/weights/lenet5.pth, a state dict, and beside it lenet5.json: how it was trained,
and how many unseen digits it gets right. The builder copies those figures into the manifest.

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
from typing import TYPE_CHECKING, Annotated, Any

import typer

from export.bootstrap import require_packages

if TYPE_CHECKING:
    from torch import nn

    from export.digits import Integers

WEIGHTS = Path(__file__).with_name("weights")


@dataclass(frozen=True)
class Recipe:
    """Cross entropy by stochastic gradient descent; each epoch sees each digit once, drawn anew."""

    epochs: int
    batch: int
    rate: float  # the highest: reached after two epochs, then down to 0 along a cosine
    momentum: float = 0.9
    weight_decay: float = 5e-4


# By the network's name in the catalog.
RECIPES = {"lenet5": Recipe(epochs=100, batch=32, rate=0.02)}


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
    output: Annotated[
        Path,
        typer.Option(
            file_okay=False,
            help="The folder for NAME.pth and NAME.json.",
            show_default="export/weights",
        ),
    ] = WEIGHTS,
) -> None:
    """Train a digit network on scikit-learn's load_digits; measure it on digits it has not seen.

    Examples:

        python export/train.py lenet5

        python export/train.py lenet5 --folds

        python export/train.py lenet5 --epochs 5 --output /tmp/weights
    """
    recipe = _find(name)
    require_packages()
    if epochs is not None:
        recipe = replace(recipe, epochs=epochs)
    try:
        output.mkdir(parents=True, exist_ok=True)
        facts = _train(name, recipe, seed, folds, output)
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

    from export.digits import contiguous_fifths, random_fifth

    torch.set_num_threads(1)  # more threads add in another order, and are no quicker at this size
    parts = [random_fifth(), *(contiguous_fifths() if folds else [])]
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(f"Training {name}", total=len(parts) * recipe.epochs)
        networks = [
            fit(name, recipe, part.train, seed, lambda: progress.advance(task)) for part in parts
        ]
    held_out, *fifths = [
        {"correct": correct(network, part.held_out), "total": len(part.held_out)}
        for network, part in zip(networks, parts, strict=True)
    ]
    weights = io.BytesIO()
    torch.save(networks[0].state_dict(), weights)
    sha256 = hashlib.sha256(weights.getvalue()).hexdigest()
    facts_path = output / f"{name}.json"
    fifths = fifths or _fifths_before(facts_path, sha256)
    facts = {
        "network": name,
        "trained_on": "digits",
        "sha256": sha256,
        "seed": seed,
        "recipe": asdict(recipe),
        "torch": torch.__version__.partition("+")[0],
        "accuracy": _accuracy(held_out, fifths),
        "contiguous_fifths": fifths,
    }
    (output / f"{name}.pth").write_bytes(weights.getvalue())
    facts_path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return facts


def fit(
    name: str, recipe: Recipe, rows: Integers, seed: int, epoch_done: Callable[[], None]
) -> nn.Module:
    """The network of that name, trained on these rows of the data set."""
    import torch
    from torch.nn.functional import cross_entropy

    from export.catalog import CATALOG
    from export.digits import augment, fields, network_input

    torch.manual_seed(seed)  # the first weights
    random = torch.Generator().manual_seed(seed)
    network = CATALOG[name].build()
    pictures, labels = fields(rows)
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.rate, recipe.momentum, weight_decay=recipe.weight_decay
    )
    steps = math.ceil(len(rows) / recipe.batch)  # of an epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: share_of_rate(step / steps, recipe.epochs)
    )
    for _ in range(recipe.epochs):
        order = torch.randperm(len(rows), generator=random)
        for batch in torch.split(order, recipe.batch):
            logits = network(network_input(augment(pictures[batch], random)))
            optimizer.zero_grad()
            cross_entropy(logits, labels[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        epoch_done()
    return network.eval()


def share_of_rate(epoch: float, epochs: int) -> float:
    """0 to 1: up in a line over two epochs, then down to 0 along half a cosine."""
    if epoch < 2:
        return epoch / 2
    return 0.5 * (1 + math.cos(math.pi * (epoch - 2) / (epochs - 2)))


def correct(network: nn.Module, rows: Integers) -> int:
    """How many of these rows the network reads right, from the bytes that it would be served."""
    import torch

    from export.digits import clean, fields, network_input

    images = torch.from_numpy(clean(rows)).permute(0, 3, 1, 2)  # N×1×32×32
    _, labels = fields(rows)
    with torch.inference_mode():
        answers = network(network_input(images / 255)).argmax(1)
    return int((answers == labels).sum())


def _accuracy(held_out: dict[str, int], fifths: list[dict[str, int]]) -> list[dict[str, Any]]:
    """What stands in the manifest: the usual measure, and the one that is fair to new writers."""
    data = "of scikit-learn's load_digits"
    entries = [{"measured": f"top-1, held-out fifth {data} (random, stratified)", **held_out}]
    if fifths:
        worst = min(fifths, key=lambda fifth: fifth["correct"] / fifth["total"])
        entries.append(
            {"measured": f"top-1, worst contiguous fifth {data}, trained on the others", **worst}
        )
    return entries


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
