"""Trains a digit network that ships, and measures it.

    python export/train.py resnet20_digits

writes to export/weights: resnet20_digits.pth, a state dict; resnet20_digits.json, the recipe, the
accuracy on unseen digits and the threshold of what is none, which a build copies into the manifest;
resnet20_digits.curve.json, the course of the training.

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
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from convoy.process import command_process
from convoy.terminal import print_error
from export.bootstrap import require_packages
from export.files import TRAINED_WEIGHTS
from export.training.recipes import RECIPES

if TYPE_CHECKING:
    from export.samples.mnist import Digits

Data = Annotated[
    Path | None,
    typer.Option(
        dir_okay=False,
        help="MNIST's training digits: an npz file with `images` and `labels`, or the IDX file of "
        "images with that of labels beside it.",
        show_default="MNIST's own files, downloaded once",
    ),
]
Rows = Annotated[
    Literal["shipped", "all"],
    typer.Option(help="Of IDX files: the digits of the shipped weights, or all."),
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
    data: Data = None,
    rows: Rows = "shipped",
    seed: Seed = 0,
    epochs: Epochs = None,
    measure: Measure = False,
    output: Output = TRAINED_WEIGHTS,
) -> None:
    """Train a digit network on MNIST and scikit-learn's load_digits; measure it on unseen digits.

    Examples:

        python export/train.py lenet5

        python export/train.py resnet20_digits --data train-images-idx3-ubyte.gz

        python export/train.py lenet5 --epochs 5 --output /tmp/weights
    """
    check_name(name)
    require_packages()
    from export.console import ProgressBars
    from export.training.results import STEPS, remeasure, train_and_measure

    handwritten = read_digits(data, rows)
    try:
        output.mkdir(parents=True, exist_ok=True)
        if measure:
            facts = remeasure(name, handwritten, output)
        else:
            with ProgressBars(name, STEPS) as bars:
                facts = train_and_measure(name, handwritten, seed, epochs, output, bars)
    except FileNotFoundError as error:
        sys.exit(f"There is no {error.filename} to measure: train without --measure first.")
    except OSError as error:
        sys.exit(f"Cannot write to {output}: {error.strerror}; choose another --output.")
    _print(output / f"{name}.pth", facts)


def read_digits(data: Path | None, rows: Literal["shipped", "all"]) -> Digits:
    """MNIST's digits; ends the command where they cannot be read."""
    from export.errors import ExportError
    from export.samples.mnist import InvalidDigits
    from export.training.results import load_digits

    try:
        return load_digits(data, rows)
    except FileNotFoundError as error:
        sys.exit(f"There is no {error.filename}.")
    except OSError as error:
        sys.exit(f"Cannot read {error.filename}: {error.strerror}.")
    except (ExportError, InvalidDigits) as error:
        sys.exit(str(error))


def check_name(name: str) -> None:
    """An unknown name is wrong usage: exit code 2."""
    if name not in RECIPES:
        near = difflib.get_close_matches(name.lower(), RECIPES, cutoff=0.4) or RECIPES
        print_error(
            f"No network called {name!r} is trained here: did you mean {' or '.join(near)}?"
        )
        raise typer.Exit(2)


def _print(path: Path, facts: dict[str, Any]) -> None:
    print(path)
    for entry in facts["accuracy"]:
        share = entry["correct"] / entry["total"]
        print(f"  {entry['correct']} of {entry['total']} ({share:.1%}): {entry['measured']}")
    for kind, entry in facts["unfamiliar"]["caught"].items():
        print(f"  {entry['caught']} of {entry['total']} doubted or rejected: {kind}")


if __name__ == "__main__":
    with command_process():
        typer.run(train)
