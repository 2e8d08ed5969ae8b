"""Networks side by side: what they are, what they cost, what they get right; how fast they are.

    python export/compare.py lenet5 alexnet_2012 vgg16 resnet152 nin googlenet

Sizes come from export/describe.py, printed accuracies from export/study/reported_figures.py, speed,
where it is asked for, from a run on this machine. `--lessons` prints what the course notes make of
it.
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
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from export.bootstrap import require_packages
from export.catalog import CATALOG, Network, find
from export.cli_options import Repository
from export.console import ProgressBars, stdout_console, table
from export.errors import UnknownNetwork
from export.layers import KINDS, WEIGHT_LAYERS, describe_network
from export.repository.layout import default_repository, highest_published, model_file
from export.study.latency import STAGES, Speed, measure
from export.study.reported_figures import PAPERS, Accuracy, accuracy
from export.study.tradeoffs import HEADS, Bottleneck, Cost, Head, Lessons, learn

if TYPE_CHECKING:
    from rich.table import Table

NOTES_BOTTLENECK = (28, 192, 5, 32, 16)  # of the course notes; module 3a of GoogLeNet's 5×5 branch
# LeNet-5's distances have weights, if fixed ones, and give the network its last layer.
DEEPENING = (*WEIGHT_LAYERS, "distances")


@dataclass(frozen=True)
class Served:
    """The network's newest version in the model repository."""

    version: str  # its folder's name
    file_bytes: int  # of its ONNX file, or its plan


@dataclass(frozen=True)
class Row:
    """A network as it is laid beside the others."""

    name: str
    year: int
    paper: str
    depth: int  # layers with weights on the longest path
    parameters: int
    macs: int
    weights_bytes: int  # in fp32, without running statistics
    served: Served | None
    accuracy: tuple[Accuracy, ...]


# ---------------------------------------------------------------------------------- the figures


def row(network: Network, repository: Path) -> Row:
    paper = PAPERS[network.paper]
    totals = describe_network(network).totals
    return Row(
        name=network.name,
        year=paper.year,
        paper=paper.short,
        depth=depth(network),
        parameters=totals.parameters,
        macs=totals.macs,
        weights_bytes=4 * totals.parameters,
        served=served(network.name, repository),
        accuracy=accuracy(network),
    )


def depth(network: Network) -> int:
    """Layers with weights on the longest way through: what the papers have in the names."""
    import torch
    from torch import fx, nn

    class Tracer(fx.Tracer):
        def is_leaf_module(self, module: nn.Module, name: str) -> bool:
            return type(module).__name__ in KINDS or super().is_leaf_module(module, name)

    with torch.device("meta"):
        module = network.build().eval()
    deepest: dict[fx.Node, int] = {}
    for node in Tracer().trace(module).nodes:
        before = max((deepest[each] for each in node.all_input_nodes), default=0)
        layer = module.get_submodule(node.target) if node.op == "call_module" else None
        deepest[node] = before + (KINDS.get(type(layer).__name__) in DEEPENING)
    return max(deepest.values())


def served(name: str, repository: Path) -> Served | None:
    """The file that gateways serve of that name: of the highest version, an ONNX file or a plan."""
    newest = highest_published(repository, name)
    file = model_file(newest) if newest else None
    return Served(newest.name, file.stat().st_size) if newest and file else None


# ------------------------------------------------------------------------------------ the command


def compare(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"The networks: {', '.join(CATALOG)}.", show_default="all of the catalog"
        ),
    ] = None,
    speed: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Measure too: each network's ONNX graph in fp32 with random weights, in ONNX "
            "Runtime on this machine's processor, one image at a time and in the largest batch. "
            "Takes seconds to a minute a network.",
        ),
    ] = False,
    lessons: Annotated[
        bool,
        typer.Option(
            "--lessons",
            help="Print the course notes' lessons instead: what a 1×1 bottleneck saves, what "
            "shortcuts cost, and how many parameters linear layers hold (in the networks named).",
        ),
    ] = False,
    bottleneck: Annotated[
        tuple[int, int, int, int, int],
        typer.Option(
            metavar="SIDE CHANNELS KERNEL FILTERS REDUCED",
            help="Another bottleneck for --lessons: FILTERS of KERNEL×KERNEL over an input of "
            "SIDE×SIDE×CHANNELS, directly and after REDUCED filters of 1×1.",
        ),
    ] = NOTES_BOTTLENECK,
    repository: Repository = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Lay networks side by side: paper, depth, parameters, multiplications, accuracy, size.

    Depth is the number of layers with weights on the longest way through. MACs are the
    multiplications of convolution and linear layers for one image. Accuracy is as published, for
    the default checkpoint where there is one. "fp32 MB" is four bytes a parameter; "served MB" is
    the newest file in the model repository, where there is one.

    Examples:

        python export/compare.py lenet5 alexnet_2012 vgg16 resnet152 nin googlenet

        python export/compare.py resnet18 resnet34 resnet50 --measure

        python export/compare.py --lessons --bottleneck 14 480 5 48 16
    """
    networks = _find(names)
    if lessons and speed:
        raise typer.BadParameter("--lessons measures nothing: leave --measure out.")
    if bottleneck != NOTES_BOTTLENECK and not lessons:
        raise typer.BadParameter("--bottleneck is one of the lessons: add --lessons.")
    if min(bottleneck) < 1:
        raise typer.BadParameter("--bottleneck takes five numbers of 1 at least.")
    require_packages()
    if lessons:
        shown = learn(Bottleneck(*bottleneck), [each.name for each in networks] if names else HEADS)
        if as_json:
            print(json.dumps(shown.as_dict(), indent=2))
        else:
            _print_lessons(shown)
        return
    rows = [row(network, repository or default_repository()) for network in networks]
    speeds = measure_all(networks) if speed else {}
    if as_json:
        print(json.dumps(as_dict(rows, speeds), indent=2))
    else:
        _print_rows(rows, speeds)


def _find(names: list[str] | None) -> list[Network]:
    """Those of the catalog, each once; an unknown one is wrong usage."""
    try:
        return [find(name) for name in dict.fromkeys(names or CATALOG)]
    except UnknownNetwork as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error


def measure_all(networks: list[Network]) -> dict[str, list[Speed]]:
    """One after the other, so that none takes another's processor; by name."""
    with ProgressBars("Measuring", STAGES * len(networks)) as bars:
        return {network.name: measure(network, bars) for network in networks}


def machine() -> str:
    """Where speed was measured."""
    return f"ONNX Runtime {version('onnxruntime')}, fp32, {os.cpu_count()} processor cores"


def as_dict(rows: list[Row], speeds: dict[str, list[Speed]]) -> dict[str, Any]:
    """What `--json` prints."""
    networks = [asdict(each) for each in rows]
    for network in networks:
        if network["name"] in speeds:
            network["speed"] = [asdict(speed) for speed in speeds[network["name"]]]
    return {"networks": networks} | ({"machine": machine()} if speeds else {})


# -------------------------------------------------------------------------------- what people see


def _print_rows(rows: list[Row], speeds: dict[str, list[Speed]]) -> None:
    console = stdout_console()
    numbers = ("depth", "parameters", "MACs", "fp32 MB", "served MB", "top-1/top-5 %")
    overview = table("network", "year", "paper", numbers=numbers)
    for each in rows:
        overview.add_row(
            each.name,
            str(each.year),
            each.paper,
            str(each.depth),
            f"{each.parameters:,}",
            f"{each.macs:,}",
            megabytes(each.weights_bytes),
            megabytes(each.served.file_bytes) if each.served else "",
            percent(each.accuracy),
        )
    console.print(overview)
    for line in _remarks(rows):
        console.print(line, highlight=False)
    if speeds:
        console.print(_speed_table(speeds))
        console.print(f"Random weights, {machine()}.", highlight=False)


def _speed_table(speeds: dict[str, list[Speed]]) -> Table:
    numbers = ("batch", "p50 ms", "images/s")
    rows = table("network", numbers=numbers * 2)
    for name, measured in speeds.items():
        figures = [(str(it.batch), f"{it.p50_ms:.2f}", f"{it.images_per_s:.1f}") for it in measured]
        rows.add_row(name, *chain.from_iterable(figures))
    return rows


def _remarks(rows: list[Row]) -> list[str]:
    """What the accuracies are of, and the served files."""
    names: dict[str, list[str]] = {}
    for each in rows:
        for first in each.accuracy[:1]:
            names.setdefault(f"{first.source}, {first.measured}", []).append(each.name)
    remarks = [f"{', '.join(who)}: {origin}" for origin, who in names.items()]
    served = [each.served.version for each in rows if each.served]
    return remarks + ([f"Served: {', '.join(served)}"] if served else [])


def _print_lessons(shown: Lessons) -> None:
    console = stdout_console()
    console.print(_bottleneck_table(shown.bottleneck))
    console.print(_shortcut_table(shown.shortcuts))
    console.print(_head_table(shown.linear_layers))


def _bottleneck_table(it: Bottleneck) -> Table:
    taken = f"{it.side}×{it.side}×{it.channels}"
    rows = table("What a 1×1 bottleneck saves", numbers=("multiplications",))
    wide = f"{it.filters} filters of {it.kernel}×{it.kernel}"
    rows.add_row(f"{taken}, {wide} directly", f"{it.direct:,}")
    rows.add_row(f"{taken}, {it.reduced} filters of 1×1", f"{it.squeeze:,}")
    rows.add_row(f"{it.side}×{it.side}×{it.reduced}, {wide}", f"{it.expand:,}")
    rows.add_row("these two together", f"{it.both:,}")
    rows.add_row("times fewer", f"{it.times_fewer:.2f}")
    return rows


def _shortcut_table(costs: Iterable[Cost]) -> Table:
    numbers = ("parameters", "MACs", "more parameters", "more MACs")
    rows = table("What shortcuts cost", numbers=numbers)
    for cost in costs:
        figures = (cost.parameters, cost.macs, cost.more_parameters, cost.more_macs)
        rows.add_row(cost.network, *(f"{each:,}" for each in figures))
    return rows


def _head_table(heads: Iterable[Head]) -> Table:
    numbers = ("parameters", "in linear layers", "share")
    rows = table("Where the parameters sit", numbers=numbers)
    for each in heads:
        rows.add_row(each.name, f"{each.parameters:,}", f"{each.linear:,}", f"{each.share:.1%}")
    return rows


def megabytes(size_bytes: int) -> str:
    """Of a million bytes."""
    return f"{size_bytes / 1e6:.2f}" if size_bytes < 1e7 else f"{size_bytes / 1e6:.0f}"


def percent(published: tuple[Accuracy, ...]) -> str:
    """71.592 / 90.382, of the first; a dash for what is not published."""
    if not published:
        return "–"
    figures = (published[0].top1, published[0].top5)
    return " / ".join("–" if each is None else f"{each:g}" for each in figures)


if __name__ == "__main__":
    typer.run(compare)
