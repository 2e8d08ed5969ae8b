"""Writes docs/models.md: the catalog, its true sizes, and what was printed about the networks.

python docs/write_models.py           writes the page
python docs/write_models.py --print   prints what it would write; a test compares the two

All facts come from elsewhere: references and checkpoints from the catalog, sizes from
export/layers.py, published figures from export/study/reported_figures.py, and the differences from
a paper, word for word, from the head of the architecture's file.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from export.catalog import CATALOG, Checkpoint, Network  # noqa: E402
from export.layers import Description, describe_network  # noqa: E402
from export.study.figures import (  # noqa: E402
    Row,
    compute_row,
    depth,
    render_accuracy,
    render_megabytes,
)
from export.study.reported_figures import (  # noqa: E402
    REPORTED,
    TABLE_1,
    Printed,
    ReportedAccuracy,
)

PAGE = Path(__file__).with_name("models.md")

HEAD = """\
# Models

Every network that can be built, written by `make docs` from the catalog, the layers, the published
figures and the heads of the architectures' files. `convoy describe NAME` shows one layer by layer,
`convoy compare` compares them.

- **Depth** is the number of layers with weights on the longest path.
- **Parameters** are the trainable ones, without running statistics; MB is four bytes each.
- **MACs** are the multiplications of convolution and linear layers for one image, without biases,
  norms, pools, activations, and heads that are only used in training.
- **Top-1 / top-5** are correct answers in per cent, for the default checkpoint if there is one; the
  sections below have the details.
"""


def page() -> str:
    rows = {
        name: compute_row(network, ROOT / "model_repository") for name, network in CATALOG.items()
    }
    families = groupby(CATALOG.values(), key=lambda network: network.architecture.partition(":")[0])
    return "\n".join(
        [
            HEAD,
            overview(rows.values()),
            *(family(module, list(networks), rows) for module, networks in families),
        ]
    )


def overview(rows: Iterable[Row]) -> str:
    header = ("network", "paper", "depth", "parameters", "MACs", "MB", "top-1 / top-5 %")
    lines = [
        (
            f"[{row.name}](#{row.name})",
            f"{row.paper} {row.year}",
            str(row.depth),
            f"{row.parameters:,}",
            f"{row.macs:,}",
            render_megabytes(row.weights_bytes),
            render_accuracy(row.accuracy),
        )
        for row in rows
    ]
    return table(header, lines, words=2)


def family(module: str, networks: Sequence[Network], rows: dict[str, Row]) -> str:
    """Renders the head of the file, and its networks."""
    path = ROOT / "export" / "architectures" / f"{module}.py"
    head = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    title = re.split(r"[:,]", head, maxsplit=1)[0]
    link = f"From the head of [{path.name}](../{path.relative_to(ROOT)}):"
    quoted = "\n".join(f"> {line}".rstrip() for line in with_lists(head))
    sections = (section(network, rows[network.name]) for network in networks)
    return "\n".join([f"## {title} ({path.name})\n", f"{link}\n", f"{quoted}\n", *sections])


def with_lists(head: str) -> Iterator[str]:
    """Adds the empty lines that Markdown needs before and after a list."""
    in_list = False
    for line in head.splitlines():
        if line and line.startswith(("- ", "  ")) != in_list:
            in_list = not in_list
            yield ""
        yield line


def section(network: Network, row: Row) -> str:
    description = describe_network(network)
    reported = REPORTED[network.name]
    facts = [
        f"Paper: {network.paper}",
        f"Input: {network.channels}×{network.size}×{network.size}. {network.preparation}",
        f"Depth {row.depth}, {row.parameters:,} parameters "
        f"({render_megabytes(row.weights_bytes)} MB), {row.macs:,} MACs",
        *(f"Accuracy: {render_accuracies(accuracy)}" for accuracy in row.accuracy),
        f"Weights: {render_weights(network)}",
    ]
    parts = [f"### {network.name}\n", f"{reported.summary}\n", *(f"- {fact}" for fact in facts), ""]
    if reported.printed:
        parts += [printed_table(network, reported.printed, description)]
    if network.name == "googlenet_2014":
        parts += [TABLE_1_HEAD, table_1(description)]
    return "\n".join(parts)


def render_accuracies(accuracy: ReportedAccuracy) -> str:
    figures = [
        f"{name} {value:g} %"
        for name, value in (("top-1", accuracy.top1), ("top-5", accuracy.top5))
        if value is not None
    ]
    # train.py's descriptions begin with top-1.
    measured = accuracy.measured.removeprefix("top-1, ")
    return f"{', '.join(figures)} ({accuracy.source}; {measured})"


def render_weights(network: Network) -> str:
    if network.checkpoints:
        return "; ".join(map(render_checkpoint, network.checkpoints))
    if network.weights == "digits":
        return f"trained here by `python export/train.py {network.name}`"
    return "none are published: use your own (`--weights FILE`) or `--weights random`"


def render_checkpoint(it: Checkpoint) -> str:
    photo = it.preprocessing.photo
    return f"`{it.file}` ({it.source}, resize {photo.resize}, crop {photo.crop})"


def printed_table(network: Network, printed: Iterable[Printed], description: Description) -> str:
    lines = [
        (
            f"{WORDS[size.figure]} of {size.layer}" if size.layer else WORDS[size.figure],
            size.printed,
            f"{count(network, size, description):,}",
            size.why,
        )
        for size in printed
    ]
    return table(("size", "printed", "true", "why"), lines, words=1, notes=1)


WORDS = {
    "parameters": "parameters",
    "macs": "MACs",
    "neurons": "neurons",
    "connections": "connections",
    "depth": "depth",
    "input": "numbers of the input",
}


def count(network: Network, printed: Printed, description: Description) -> int:
    """Returns the true size."""
    if printed.layer:
        return next(it for it in description.layers if it.name == printed.layer).activations
    if printed.figure == "input":
        return network.channels * network.size**2
    if printed.figure == "depth":
        return depth(network)
    figure: int = getattr(description.totals, printed.figure)
    return figure


TABLE_1_HEAD = """\
Table 1 of the paper, row by row: parameters without biases in units of 1,024, operations in
millions. From 4a to 5b the printed parameters fit no reading. The first row is what a separable
7×7 would cost.
"""


def table_1(description: Description) -> str:
    blocks = {block.name: block for block in description.blocks}
    figures: dict[str, tuple[float, ...]] = {
        " and ".join(names): (
            printed_parameters,
            sum(blocks[name].weights for name in names) / 1024,
            printed_operations,
            sum(blocks[name].macs for name in names) / 1e6,
        )
        for names, (printed_parameters, printed_operations) in TABLE_1.items()
    }
    figures["sum"] = tuple(map(sum, zip(*figures.values(), strict=True)))
    lines = [
        (row, f"{printed:,g} K", f"{weights:,.1f} K", f"{operations:,} M", f"{macs:,.1f} M")
        for row, (printed, weights, operations, macs) in figures.items()
    ]
    header = ("row", "printed parameters", "true", "printed operations", "true")
    return table(header, lines, words=1)


def table(header: Sequence[str], lines: Sequence[Sequence[str]], words: int, notes: int = 0) -> str:
    """Renders Markdown that is readable as text: words flush left, numbers flush right."""
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    left = [place < words or place >= len(header) - notes for place in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(cells, widths, left, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * width if to_left else "-" * (width - 1) + ":"
        for width, to_left in zip(widths, left, strict=True)
    ]
    return "\n".join([line(header), line(rule), *map(line, lines)]) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--print"]:
        print(page(), end="")
    else:
        PAGE.write_text(page(), encoding="utf-8")
