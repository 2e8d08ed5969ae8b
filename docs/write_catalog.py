"""Writes server/page/static/catalog.json: the networks, layer by layer, for the page.

python docs/write_catalog.py           writes the file
python docs/write_catalog.py --print   prints what it would write; a test compares the two

A batch norm belongs to the layer before it: its parameters are counted there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from export.catalog import CATALOG, Network  # noqa: E402
from export.layers import Block, Description, Layer, describe_network  # noqa: E402
from export.study.figures import compute_row  # noqa: E402
from export.study.reported_figures import REPORTED  # noqa: E402

FILE = ROOT / "server" / "page" / "static" / "catalog.json"
DEPTH = ROOT / "docs" / "depth.json"

Json = dict[str, Any]


def document() -> str:
    """One network per line, so that a change shows where it is."""
    networks = ",\n".join(map(compact, map(describe, CATALOG.values())))
    depth = compact(json.loads(DEPTH.read_text(encoding="utf-8"))["runs"])
    return f'{{"networks":[\n{networks}\n],\n"depth":{depth}}}\n'


def compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def describe(network: Network) -> Json:
    row = compute_row(network, ROOT / "model_repository")
    description = describe_network(network)
    return {
        "name": network.name,
        "family": network.architecture.partition(":")[0],
        "paper": network.paper,
        "year": row.year,
        "summary": REPORTED[network.name].summary,
        "input": [network.channels, network.size, network.size],
        "preparation": network.preparation,
        "depth": row.depth,
        "parameters": row.parameters,
        "macs": row.macs,
        "top1": row.accuracy[0].top1 if row.accuracy else None,
        "top1_of": row.accuracy[0].measured if row.accuracy else "",
        "layers": list(layer_rows(description)),
        "modules": [module(block) for block in description.blocks if block.branches],
    }


def layer_rows(description: Description) -> Iterable[list[Any]]:
    """Name, kind, kernel, stride, output, parameters, multiplications."""
    rows: list[list[Any]] = []
    for layer in description.layers:
        if layer.kind == "batch norm" and rows:
            rows[-1][5] += layer.parameters
        else:
            rows.append(layer_row(layer))
    return rows


def layer_row(layer: Layer) -> list[Any]:
    kernel = "×".join(map(str, layer.kernel)) if layer.kernel else ""
    stride = layer.stride[0] if layer.stride else 0
    output = list(layer.output)
    return [layer.name, layer.kind, kernel, stride, output, layer.parameters, layer.macs]


def module(block: Block) -> Json:
    """An Inception module: channels after each convolution of its branches."""
    return {"name": block.name, "output": block.output, "branches": list(block.branches.values())}


if __name__ == "__main__":
    if sys.argv[1:] == ["--print"]:
        print(document(), end="")
    else:
        FILE.write_text(document(), encoding="utf-8")
