"""Describes a network layer by layer, as the papers' tables do: shapes, parameters,
multiplications.

    python export/describe.py googlenet_2014

export/layers.py counts them.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run by its path, not imported
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from export.bootstrap import continue_in_venv

    continue_in_venv()

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convoy.process import command_process
from convoy.tables import plain_console
from convoy.terminal import print_error
from export.bootstrap import require_packages
from export.catalog import CATALOG, Network, find
from export.cli_options import Json
from export.console import table
from export.errors import UnknownNetwork
from export.layers import Block, Description, Layer, describe_network

if TYPE_CHECKING:
    from rich.table import Table


def describe(
    name: Annotated[str, typer.Argument(help=f"The network: {', '.join(CATALOG)}.")],
    as_json: Json = False,
) -> None:
    """Print a network layer by layer: output shape, parameters, multiplications of one image.

    MACs are the multiplications of convolution and linear layers. Activations are the outputs of a
    layer; the papers' neurons are those of convolution and linear layers. Weights are parameters
    without biases and norms, counted as in table 1 of the GoogLeNet paper, whose unit is 1024.
    Connections are the inputs and the bias of each output, counted as in the LeNet-5 paper.

    Examples:

        python export/describe.py lenet5

        python export/describe.py googlenet_2014 --json
    """
    try:
        network = find(name)
    except UnknownNetwork as error:
        print_error(error)
        raise typer.Exit(2) from error
    require_packages()
    description = describe_network(network)
    if as_json:
        print(json.dumps(as_dict(network, description), indent=2))
    else:
        _print(network, description)


def as_dict(network: Network, description: Description) -> dict[str, Any]:
    """Returns what `--json` prints."""
    return {
        "name": network.name,
        "paper": network.paper,
        "input": [network.channels, network.size, network.size],
        "preparation": network.preparation,
        "totals": asdict(description.totals),
        "blocks": [asdict(block) for block in description.blocks],
        "layers": [
            asdict(layer) | {"activations": layer.activations} for layer in description.layers
        ],
    }


def _print(network: Network, description: Description) -> None:
    console = plain_console()
    totals = description.totals
    console.print(f"{network.name}: {network.paper}")
    console.print(_layer_table(description.layers))
    if len(description.blocks) < len(description.layers):
        console.print(_block_table(description.blocks))
    console.print(
        f"Input {_render_shape((network.channels, network.size, network.size))}. "
        f"Parameters {totals.parameters:,}, MACs {totals.macs:,}, neurons {totals.neurons:,}, "
        f"connections {totals.connections:,}.",
    )
    console.print(network.preparation)


def _layer_table(layers: Iterable[Layer]) -> Table:
    numbers = ("parameters", "MACs", "activations", "connections")
    rows = table("layer", "kind", "kernel/stride/pad", "groups", "output", numbers=numbers)
    for layer in layers:
        rows.add_row(
            layer.name,
            layer.kind,
            "/".join(map(_render_sides, filter(None, (layer.kernel, layer.stride, layer.padding)))),
            str(layer.groups) if layer.groups else "",
            _render_shape(layer.output),
            *map(
                _render_number, (layer.parameters, layer.macs, layer.activations, layer.connections)
            ),
        )
    return rows


def _block_table(blocks: Iterable[Block]) -> Table:
    numbers = ("parameters", "weights", "MACs")
    rows = table("block", "channels of its branches", "output", numbers=numbers)
    for block in blocks:
        rows.add_row(
            block.name,
            " | ".join(" ".join(map(str, channels)) for channels in block.branches.values()),
            _render_shape(block.output),
            *map(_render_number, (block.parameters, block.weights, block.macs)),
        )
    return rows


def _render_number(value: int) -> str:
    return f"{value:,}" if value else ""


def _render_shape(sides: tuple[int, ...]) -> str:
    return "×".join(map(str, sides))


def _render_sides(pair: tuple[int, ...]) -> str:
    """Returns "3" for 3×3, and "1×7" for a flat one."""
    return str(pair[0]) if pair[0] == pair[1] else _render_shape(pair)


if __name__ == "__main__":
    with command_process():
        typer.run(describe)
