"""What does each augmentation give? Trains a digit network without each of them, and without all.

    python export/study/augmentation_study.py nin_digits

prints the table that docs/digit-networks.md discusses. Each line is a training as in
export/train.py, with the same seed and the same recipe.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run by its path, not imported
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from export.bootstrap import continue_in_venv

    continue_in_venv()

from typing import Annotated, Any

import typer

from convoy.process import command_process
from export.bootstrap import require_packages
from export.train import Data, Epochs, Rows, Seed, check_name, read_digits

HEAD = "| without | scikit-learn | those drawn | MNIST | MNIST drawn |\n|---|---:|---:|---:|---:|"


def study(
    name: Annotated[str, typer.Argument(help="The network, as in export/train.py.")],
    data: Data = None,
    rows: Rows = "shipped",
    seed: Seed = 0,
    epochs: Epochs = None,
) -> None:
    """Train a digit network without each augmentation; print how many digits it reads.

    Example:

        python export/study/augmentation_study.py nin_digits --seed 1
    """
    check_name(name)
    require_packages()
    from dataclasses import replace

    from export.catalog import CATALOG
    from export.console import ProgressBars
    from export.samples.digits import AUGMENTATIONS
    from export.training.data import training_set
    from export.training.fit import Epoch, fit
    from export.training.measure import held_out, measure
    from export.training.recipes import RECIPES

    digits = read_digits(data, rows)
    recipe = RECIPES[name] if epochs is None else replace(RECIPES[name], epochs=epochs)
    variants = [(), *((each,) for each in AUGMENTATIONS), AUGMENTATIONS]
    print(HEAD)
    with ProgressBars(name, 1 + len(variants)) as bars:
        bars.step("preparing the digits")
        known, unseen = training_set(digits, drawings=recipe.drawings), held_out(digits)

        def epoch_done(point: Epoch) -> None:
            bars.progress("epochs", point.epoch, recipe.epochs)

        for omitted in variants:
            bars.step(f"without {_title(omitted)}")
            trained = fit(CATALOG[name].build, recipe, known, seed, epoch_done, omitted)
            print(row(omitted, measure(trained.network, unseen)), flush=True)


def row(omitted: tuple[str, ...], accuracy: list[dict[str, Any]]) -> str:
    """Renders a line of the table in Markdown."""
    cells = [
        f"{each['correct']} of {each['total']} ({each['correct'] / each['total']:.1%})"
        for each in accuracy
    ]
    return f"| {' | '.join([_title(omitted), *cells])} |"


def _title(omitted: tuple[str, ...]) -> str:
    return " and ".join(omitted) or "nothing"


if __name__ == "__main__":
    with command_process():
        typer.run(study)
