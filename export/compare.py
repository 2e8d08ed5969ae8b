"""Compare networks: their papers, sizes, accuracies and, on request, their speed.

    python export/compare.py lenet5 alexnet_2012 vgg16 resnet152 nin googlenet

Sizes are counted (export/layers.py), accuracies are as published
(export/study/reported_figures.py), and speed is measured on this machine. `--lessons` prints the
course notes' lessons instead.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run by its path, not imported
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from export.bootstrap import continue_in_venv

    continue_in_venv()

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convoy.process import command_process
from convoy.tables import plain_console
from convoy.terminal import print_error
from export.bootstrap import require_packages
from export.catalog import CATALOG, Network, find
from export.cli_options import Json, Repository
from export.console import ProgressBars, table
from export.errors import UnknownNetwork
from export.repository.layout import default_repository
from export.study.figures import Row, compute_row, render_accuracy, render_megabytes
from export.study.latency import STAGES, Speed, measure
from export.study.tradeoffs import (
    LARGE_HEADS,
    BottleneckCost,
    Head,
    Lessons,
    ShortcutCost,
    compute_lessons,
)

if TYPE_CHECKING:
    from rich.table import Table

NOTES_BOTTLENECK = (28, 192, 5, 32, 16)  # of the course notes: the 5×5 branch of GoogLeNet's 3a

Names = Annotated[
    list[str] | None,
    typer.Argument(help=f"The networks: {', '.join(CATALOG)}.", show_default="all in the catalog"),
]
Measure = Annotated[
    bool,
    typer.Option(
        "--measure",
        help="Also measure the speed of each network's ONNX graph in fp32 with random weights, in "
        "ONNX Runtime on this machine's CPU, with one image and with the maximum batch size. Takes "
        "seconds to a minute per network.",
    ),
]
PrintLessons = Annotated[
    bool,
    typer.Option(
        "--lessons",
        help="Instead, print the course notes' lessons: what a 1×1 bottleneck saves, what "
        "shortcuts cost, and how many parameters linear layers have (in the given networks).",
    ),
]
Bottleneck = Annotated[
    tuple[int, int, int, int, int],
    typer.Option(
        metavar="SIDE CHANNELS KERNEL FILTERS REDUCED",
        help="Another bottleneck for --lessons: FILTERS of KERNEL×KERNEL over an input of "
        "SIDE×SIDE×CHANNELS, directly and after REDUCED filters of 1×1.",
    ),
]


def compare(
    names: Names = None,
    measures: Measure = False,
    lessons: PrintLessons = False,
    bottleneck: Bottleneck = NOTES_BOTTLENECK,
    repository: Repository = None,
    as_json: Json = False,
) -> None:
    """Compare networks: paper, depth, parameters, multiplications, accuracy, size.

    Depth is the number of layers with weights on the longest path. MACs are the multiplications of
    convolution and linear layers for one image. Accuracy is as published, for the default
    checkpoint if there is one. "fp32 MB" is four bytes per parameter; "served MB" is the newest
    file in the model repository, if there is one.

    Examples:

        python export/compare.py lenet5 alexnet_2012 vgg16 resnet152 nin googlenet

        python export/compare.py resnet18 resnet34 resnet50 --measure

        python export/compare.py --lessons --bottleneck 14 480 5 48 16
    """
    networks = _find(names)
    if lessons and measures:
        raise typer.BadParameter("--lessons measures nothing: omit --measure.")
    if bottleneck != NOTES_BOTTLENECK and not lessons:
        raise typer.BadParameter("--bottleneck belongs to the lessons: add --lessons.")
    if min(bottleneck) < 1:
        raise typer.BadParameter("--bottleneck takes five numbers, each at least 1.")
    require_packages()
    if lessons:
        heads = [network.name for network in networks] if names else LARGE_HEADS
        _print_lessons(compute_lessons(BottleneckCost(*bottleneck), heads), as_json)
        return
    rows = [compute_row(network, repository or default_repository()) for network in networks]
    speeds = measure_all(networks) if measures else {}
    if as_json:
        print(json.dumps(as_dict(rows, speeds), indent=2))
    else:
        _print_rows(rows, speeds)


def _find(names: list[str] | None) -> list[Network]:
    """Returns the networks, each once. An unknown name is wrong usage: exit code 2."""
    try:
        return [find(name) for name in dict.fromkeys(names or CATALOG)]
    except UnknownNetwork as error:
        print_error(error)
        raise typer.Exit(2) from error


def measure_all(networks: list[Network]) -> dict[str, list[Speed]]:
    """Measures one network after the other, so that they do not compete for the CPU; by name."""
    with ProgressBars("Measuring", STAGES * len(networks)) as bars:
        return {network.name: measure(network, bars) for network in networks}


def machine() -> str:
    """Describes what measured the speed."""
    return f"ONNX Runtime {version('onnxruntime')}, fp32, {os.cpu_count()} processor cores"


def as_dict(rows: list[Row], speeds: dict[str, list[Speed]]) -> dict[str, Any]:
    """What `--json` prints."""
    networks = [asdict(row) for row in rows]
    for network in networks:
        if network["name"] in speeds:
            network["speed"] = [asdict(speed) for speed in speeds[network["name"]]]
    return {"networks": networks} | ({"machine": machine()} if speeds else {})


# -------------------------------------------------------------------------------- tables


def _print_rows(rows: list[Row], speeds: dict[str, list[Speed]]) -> None:
    console = plain_console()
    numbers = ("depth", "parameters", "MACs", "fp32 MB", "served MB", "top-1/top-5 %")
    overview = table("network", "year", "paper", numbers=numbers)
    for row in rows:
        overview.add_row(
            row.name,
            str(row.year),
            row.paper,
            str(row.depth),
            f"{row.parameters:,}",
            f"{row.macs:,}",
            render_megabytes(row.weights_bytes),
            render_megabytes(row.served.file_bytes) if row.served else "",
            render_accuracy(row.accuracy),
        )
    console.print(overview)
    for line in _remarks(rows):
        console.print(line)
    if speeds:
        console.print(_speed_table(speeds))
        console.print(f"Random weights, {machine()}.")


def _speed_table(speeds: dict[str, list[Speed]]) -> Table:
    numbers = ("batch", "p50 ms", "images/s")
    rows = table("network", numbers=numbers * 2)
    for name, measured in speeds.items():
        figures = [(str(it.batch), f"{it.p50_ms:.2f}", f"{it.images_per_s:.1f}") for it in measured]
        rows.add_row(name, *chain.from_iterable(figures))
    return rows


def _remarks(rows: list[Row]) -> list[str]:
    """Returns what was measured for the accuracies, and the served files."""
    names: dict[str, list[str]] = {}
    for row in rows:
        for first in row.accuracy[:1]:
            names.setdefault(f"{first.source}, {first.measured}", []).append(row.name)
    remarks = [f"{', '.join(networks)}: {origin}" for origin, networks in names.items()]
    served = [row.served.version for row in rows if row.served]
    return remarks + ([f"Served: {', '.join(served)}"] if served else [])


def _print_lessons(lessons: Lessons, as_json: bool) -> None:
    if as_json:
        print(json.dumps(lessons.as_dict(), indent=2))
        return
    console = plain_console()
    console.print(_bottleneck_table(lessons.bottleneck))
    console.print(_shortcut_table(lessons.shortcuts))
    console.print(_head_table(lessons.linear_layers))


def _bottleneck_table(it: BottleneckCost) -> Table:
    source = f"{it.side}×{it.side}×{it.channels}"
    rows = table("What a 1×1 bottleneck saves", numbers=("multiplications",))
    wide = f"{it.filters} filters of {it.kernel}×{it.kernel}"
    rows.add_row(f"{source}, {wide} directly", f"{it.direct:,}")
    rows.add_row(f"{source}, {it.reduced} filters of 1×1", f"{it.squeeze:,}")
    rows.add_row(f"{it.side}×{it.side}×{it.reduced}, {wide}", f"{it.expand:,}")
    rows.add_row("these two together", f"{it.both:,}")
    rows.add_row("times fewer", f"{it.times_fewer:.2f}")
    return rows


def _shortcut_table(costs: Iterable[ShortcutCost]) -> Table:
    numbers = ("parameters", "MACs", "more parameters", "more MACs")
    rows = table("What shortcuts cost", numbers=numbers)
    for cost in costs:
        figures = (cost.parameters, cost.macs, cost.more_parameters, cost.more_macs)
        rows.add_row(cost.network, *(f"{figure:,}" for figure in figures))
    return rows


def _head_table(heads: Iterable[Head]) -> Table:
    numbers = ("parameters", "in linear layers", "share")
    rows = table("Where the parameters sit", numbers=numbers)
    for head in heads:
        rows.add_row(head.name, f"{head.parameters:,}", f"{head.linear:,}", f"{head.share:.1%}")
    return rows


if __name__ == "__main__":
    with command_process():
        typer.run(compare)
