"""The figures of a network: paper, depth, sizes, accuracies, and the file that is served."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from export.catalog import Network, build
from export.layers import KINDS, WEIGHT_LAYERS, describe_network
from export.repository.layout import highest_published, model_file
from export.study.reported_figures import PAPERS, ReportedAccuracy, accuracy

# LeNet-5's distances have fixed weights, and are the network's last layer.
DEEPENING = (*WEIGHT_LAYERS, "distances")


@dataclass(frozen=True)
class ServedFile:
    """The network's newest version in the model repository."""

    version: str  # its folder's name
    file_bytes: int  # of its ONNX file, or its plan


@dataclass(frozen=True)
class Row:
    """A row of the comparison."""

    name: str
    year: int
    paper: str
    depth: int  # layers with weights on the longest path
    parameters: int
    macs: int
    weights_bytes: int  # in fp32, without running statistics
    served: ServedFile | None
    accuracy: tuple[ReportedAccuracy, ...]


def compute_row(network: Network, repository: Path) -> Row:
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
        served=find_served_file(network.name, repository),
        accuracy=accuracy(network),
    )


def depth(network: Network) -> int:
    """Returns the number of layers with weights on the longest path, as in the papers' names."""
    return _depth(network.architecture)


@cache
def _depth(architecture: str) -> int:
    import torch
    from torch import fx, nn

    class Tracer(fx.Tracer):
        def is_leaf_module(self, module: nn.Module, name: str) -> bool:
            return type(module).__name__ in KINDS or super().is_leaf_module(module, name)

    with torch.device("meta"):
        module = build(architecture).eval()
    deepest: dict[fx.Node, int] = {}
    for node in Tracer().trace(module).nodes:
        before = max((deepest[source] for source in node.all_input_nodes), default=0)
        layer = module.get_submodule(node.target) if node.op == "call_module" else None
        deepest[node] = before + (KINDS.get(type(layer).__name__) in DEEPENING)
    return max(deepest.values())


def find_served_file(name: str, repository: Path) -> ServedFile | None:
    """Returns the model file of the highest published version of that name, if there is one."""
    newest = highest_published(repository, name)
    file = model_file(newest) if newest else None
    return ServedFile(newest.name, file.stat().st_size) if newest and file else None


def render_megabytes(size_bytes: int) -> str:
    """In megabytes, of a million bytes: 44.7 MB is "45", 0.24 MB is "0.24"."""
    return f"{size_bytes / 1e6:.2f}" if size_bytes < 1e7 else f"{size_bytes / 1e6:.0f}"


def render_accuracy(published: tuple[ReportedAccuracy, ...]) -> str:
    """Top-1 and top-5 of the first accuracy, "71.592 / 90.382"; a dash for an unknown figure."""
    if not published:
        return "–"
    figures = (published[0].top1, published[0].top5)
    return " / ".join("–" if figure is None else f"{figure:g}" for figure in figures)
