"""Does a deeper network learn better? Trains plain and residual networks and draws their curves.

    python export/study/depth_study.py

trains the CIFAR form of the ResNet paper (section 4.2) on MNIST's digits, with shortcuts and
without, for each depth and each seed. It writes docs/depth.json, the course of each run, and
docs/depth.svg, the curves as in the paper's figure 6; it prints the table that docs/depth.md
discusses.

A run uses one thread and takes 6 (20 layers) to 17 minutes (56); one run per CPU core goes in
parallel.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run by its path, not imported
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from export.bootstrap import continue_in_venv

    continue_in_venv()

import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from typing import TYPE_CHECKING, Annotated

import typer

from convoy.process import command_process
from export.bootstrap import require_packages
from export.train import Data, Rows, read_digits
from export.training.recipes import TrainingRecipe

if TYPE_CHECKING:
    from export.architectures.resnet import CifarResNet
    from export.samples.digits import Integers
    from export.samples.mnist import Digits

DOCS = Path(__file__).resolve().parents[2] / "docs"
KINDS = ("plain", "residual")
DEPTHS = [20, 44, 56]
SEEDS = [0, 1]
EPOCHS = 6


@dataclass(frozen=True)
class Run:
    kind: str
    depth: int
    seed: int
    parameters: int
    training_error: list[float]  # after each epoch; see Epoch in export/training/fit.py
    clean_error: float  # of the undistorted training digits, in evaluation mode, at the end
    held_out_error: float  # of the fifth that was held out


def study(
    depths: Annotated[
        list[int], typer.Option("--depth", help="Layers, 6n + 2. Can be repeated.")
    ] = DEPTHS,
    seeds: Annotated[
        list[int], typer.Option("--seed", help="Seed of a run. Can be repeated.")
    ] = SEEDS,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training digits.")] = EPOCHS,
    data: Data = None,
    rows: Rows = "shipped",
    output: Annotated[
        Path,
        typer.Option(
            file_okay=False, help="The folder for depth.json and depth.svg.", show_default="docs"
        ),
    ] = DOCS,
) -> None:
    """Train plain and residual networks of several depths; write the curves of training.

    Examples:

        python export/study/depth_study.py

        python export/study/depth_study.py --depth 8 --depth 14 --seed 0 --epochs 3 --output /tmp
    """
    require_packages()
    check_depths(depths)
    digits = read_digits(data, rows)
    recipe = TrainingRecipe(epochs=epochs, rate=0.05)
    output.mkdir(parents=True, exist_ok=True)
    # The longest first, so that none runs alone at the end.
    settings = list(product(sorted(depths, reverse=True), KINDS, seeds))
    runs: list[Run] = []
    for run in _all_runs(settings, recipe, digits):
        runs = sorted([*runs, run], key=lambda run: (run.kind, run.depth, run.seed))
        write(output, recipe, runs)  # each time, so that an interrupted study keeps its runs
    print(table(runs))


def check_depths(depths: list[int]) -> None:
    """A depth that no network has is wrong usage: exit code 2."""
    try:
        for depth in depths:
            network(KINDS[0], depth)
    except ValueError as error:
        print(f"{error}.", file=sys.stderr)
        raise typer.Exit(2) from None


def network(kind: str, depth: int) -> CifarResNet:
    """Returns a network, N×1×32×32 to N×10; both kinds have the same parameters.

    Raises:
        ValueError: no network has that depth.
    """
    from export.architectures.resnet import CifarResNet, padding, plain

    return CifarResNet(depth, plain if kind == "plain" else padding)


def _all_runs(
    settings: list[tuple[int, str, int]], recipe: TrainingRecipe, digits: Digits
) -> Iterator[Run]:
    """Yields the runs as they end, and shows a progress bar."""
    from export.console import ProgressBars

    workers = min(len(settings), os.cpu_count() or 1)
    with (
        ProgressBars("Depth study", steps=1) as bars,
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
    ):
        bars.step("training")
        futures = [pool.submit(one_run, *setting, recipe, digits) for setting in settings]
        for ended, future in enumerate(as_completed(futures), start=1):
            bars.progress("networks", ended, len(settings))
            yield future.result()


def one_run(depth: int, kind: str, seed: int, recipe: TrainingRecipe, digits: Digits) -> Run:
    """Trains one network on the four fifths that are not held out."""
    from export.samples import mnist
    from export.training.data import handwritten_digits
    from export.training.fit import fit
    from export.training.measure import accept_rows, count

    train, held_out = mnist.split(digits.labels)
    data = handwritten_digits(digits)
    trained, curve = fit(partial(network, kind, depth), recipe, data, seed)

    def error(part: Integers) -> float:
        share = count(trained, accept_rows(digits, part))
        return round(1 - share["correct"] / share["total"], 4)

    return Run(
        kind=kind,
        depth=depth,
        seed=seed,
        parameters=sum(parameter.numel() for parameter in trained.parameters()),
        training_error=[point.error for point in curve],
        clean_error=error(train),
        held_out_error=error(held_out),
    )


# ------------------------------------------------------------------------------------ results


def write(output: Path, recipe: TrainingRecipe, runs: list[Run]) -> None:
    lines = ",\n".join(json.dumps(asdict(run)) for run in runs)
    head = json.dumps(asdict(recipe))
    content = f'{{\n"recipe": {head},\n"runs": [\n{lines}\n]\n}}\n'
    (output / "depth.json").write_text(content, encoding="utf-8")
    (output / "depth.svg").write_text(draw(runs), encoding="utf-8")


def table(runs: list[Run]) -> str:
    """Renders one row per run in Markdown: its errors during the training and at the end."""
    epochs = len(runs[0].training_error)
    marks = sorted({max(1, epochs // 3), max(1, 2 * epochs // 3), epochs})
    heads = [f"after {mark}" for mark in marks]
    columns = ["network", "seed", "parameters", *heads, "clean", "held out"]
    rows = [columns, ["---", *["---:"] * (len(columns) - 1)]]
    for run in runs:
        errors = [run.training_error[mark - 1] for mark in marks]
        errors += [run.clean_error, run.held_out_error]
        name = f"{run.kind}-{run.depth}"
        shares = [f"{error:.1%}" for error in errors]
        rows.append([name, str(run.seed), f"{run.parameters:,}", *shares])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


PLOT_WIDTH, PLOT_HEIGHT = 300, 240  # of one panel's axes, in the drawing's units
LEFT, TOP, GAP = 50, 40, 60
COLOURS = ("#0072b2", "#e69f00", "#d55e00", "#009e73")  # distinguishable with colour blindness
DASHES = ("none", "6 3", "2 2")  # by seed


def draw(runs: list[Run]) -> str:
    """Renders an SVG: training error over epochs, plain networks left, residual ones right."""
    width = LEFT + 2 * PLOT_WIDTH + GAP + 20
    panels = [_panel(kind, runs) for kind in KINDS]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {TOP + PLOT_HEIGHT + 50}" '
        'font-family="sans-serif" font-size="12" fill="#222">\n'
        '<rect width="100%" height="100%" fill="white"/>\n'
        f'<g transform="translate({LEFT} {TOP})">\n{panels[0]}</g>\n'
        f'<g transform="translate({LEFT + PLOT_WIDTH + GAP} {TOP})">\n{panels[1]}</g>\n</svg>\n'
    )


def _panel(kind: str, runs: list[Run]) -> str:
    """Renders axes, and a line per run with a legend; (0, 0) is the upper left corner."""
    lines = [f'<text y="-14" font-size="14">{kind}: training error</text>']
    for error in (0, 0.25, 0.5, 0.75, 1):
        y = _y(error)
        lines.append(f'<path d="M0 {y}H{PLOT_WIDTH}" stroke="#ddd"/>')
        lines.append(f'<text x="-6" y="{y + 4}" text-anchor="end">{error:.0%}</text>')
    epochs = len(runs[0].training_error)
    for epoch in range(1, epochs + 1):
        x = f'x="{_x(epoch, epochs)}"'
        lines.append(f'<text {x} y="{PLOT_HEIGHT + 18}" text-anchor="middle">{epoch}</text>')
    middle = f'x="{PLOT_WIDTH / 2}" y="{PLOT_HEIGHT + 36}" text-anchor="middle"'
    lines.append(f"<text {middle}>epoch</text>")
    depths = sorted({run.depth for run in runs})
    seeds = sorted({run.seed for run in runs})
    for number, run in enumerate(run for run in runs if run.kind == kind):
        style = _style(depths.index(run.depth), seeds.index(run.seed))
        points = " ".join(
            f"{_x(epoch, epochs)},{_y(error)}"
            for epoch, error in enumerate(run.training_error, start=1)
        )
        y = 12 + 16 * number
        lines.append(f'<polyline points="{points}" {style}/>')
        lines.append(f'<path d="M{PLOT_WIDTH - 115} {y - 4}h24" {style}/>')
        name = f"{run.depth} layers, seed {run.seed}"
        lines.append(f'<text x="{PLOT_WIDTH - 86}" y="{y}">{name}</text>')
    return "\n".join(lines) + "\n"


def _style(depth: int, seed: int) -> str:
    """Returns the style of a line by the index of its depth and its seed."""
    colour, dashes = COLOURS[depth % len(COLOURS)], DASHES[seed % len(DASHES)]
    return f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"'


def _x(epoch: int, epochs: int) -> float:
    return round(PLOT_WIDTH * epoch / epochs, 1)


def _y(error: float) -> float:
    return round(PLOT_HEIGHT * (1 - error), 1)


if __name__ == "__main__":
    with command_process():
        typer.run(study)
