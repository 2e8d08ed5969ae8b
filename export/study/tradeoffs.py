"""The course notes' lessons about the networks, computed.

They are: what a 1×1 convolution before a wide one saves, what shortcuts cost, and where the
parameters are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from export.catalog import find

if TYPE_CHECKING:
    from torch import nn

# Networks with large linear layers, and three without them.
LARGE_HEADS = ("alexnet_2012", "alexnet", "vgg16", "nin", "googlenet_2014", "resnet152")


@dataclass(frozen=True)
class BottleneckCost:
    """The cost of a convolution that keeps the size, and of the same after a 1×1 to fewer channels.

    All costs are in multiplications.
    """

    side: int  # pixels
    channels: int
    kernel: int
    filters: int
    reduced: int  # filters of the 1×1

    @property
    def direct(self) -> int:
        return multiplications(self.side, self.channels, self.kernel, self.filters)

    @property
    def squeeze(self) -> int:
        return multiplications(self.side, self.channels, 1, self.reduced)

    @property
    def expand(self) -> int:
        return multiplications(self.side, self.reduced, self.kernel, self.filters)

    @property
    def both(self) -> int:
        return self.squeeze + self.expand

    @property
    def times_fewer(self) -> float:
        return self.direct / self.both


def multiplications(side: int, channels: int, kernel: int, filters: int) -> int:
    """Each of side×side×filters outputs reads kernel×kernel×channels numbers."""
    return side * side * filters * kernel * kernel * channels


@dataclass(frozen=True)
class ShortcutCost:
    """A network of the ResNet paper, and its additional cost over its plain counterpart."""

    network: str
    parameters: int
    macs: int
    more_parameters: int
    more_macs: int


def shortcut_costs() -> list[ShortcutCost]:
    """Returns the costs without shortcuts, with padding (option A) and with projections (option B).

    Option B is published. The form for digits is the paper's for CIFAR-10, which only has option A.
    """
    import torch

    from export.architectures import resnet

    with torch.device("meta"):
        imagenet: list[dict[str, nn.Module]] = [
            {
                "plain18": resnet.plain18(),
                "resnet18, option A": resnet.resnet18(resnet.padding),
                "resnet18, option B": resnet.resnet18(),
            },
            {
                "plain34": resnet.plain34(),
                "resnet34, option A": resnet.resnet34(resnet.padding),
                "resnet34, option B": resnet.resnet34(),
            },
        ]
        digits: dict[str, nn.Module] = {
            "plain20_digits": resnet.plain20_digits(),
            "resnet20_digits, option A": resnet.resnet20_digits(),
        }
    costs = [cost for networks in imagenet for cost in _costs(networks, channels=3, size=224)]
    return costs + _costs(digits, channels=1, size=32)


def _costs(networks: dict[str, nn.Module], channels: int, size: int) -> list[ShortcutCost]:
    """`networks` begins with the plain one."""
    from export.layers import describe_module

    totals = [
        describe_module(network.eval(), channels, size).totals for network in networks.values()
    ]
    plain = totals[0]
    return [
        ShortcutCost(
            name,
            total.parameters,
            total.macs,
            total.parameters - plain.parameters,
            total.macs - plain.macs,
        )
        for name, total in zip(networks, totals, strict=True)
    ]


@dataclass(frozen=True)
class Head:
    """How many of a network's parameters are in its linear layers."""

    name: str
    parameters: int
    linear: int

    @property
    def share(self) -> float:
        return self.linear / self.parameters


def head(name: str) -> Head:
    from export.layers import describe_network

    description = describe_network(find(name))
    linear = sum(layer.parameters for layer in description.layers if layer.kind == "linear")
    return Head(name, description.totals.parameters, linear)


@dataclass(frozen=True)
class Lessons:
    bottleneck: BottleneckCost
    shortcuts: list[ShortcutCost]
    linear_layers: list[Head]

    def as_dict(self) -> dict[str, Any]:
        """Returns what `--json` prints."""
        figures = ("direct", "squeeze", "expand", "both", "times_fewer")
        return {
            "bottleneck": asdict(self.bottleneck)
            | {figure: getattr(self.bottleneck, figure) for figure in figures},
            "shortcuts": [asdict(cost) for cost in self.shortcuts],
            "linear_layers": [asdict(head) | {"share": head.share} for head in self.linear_layers],
        }


def compute_lessons(bottleneck: BottleneckCost, names: Iterable[str]) -> Lessons:
    """Computes all lessons; that on linear layers for the networks named."""
    return Lessons(bottleneck, shortcut_costs(), [head(name) for name in names])
