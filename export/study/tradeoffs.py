"""The course notes' own lessons about the networks, worked out and not typed.

What a 1×1 convolution saves before a wide one; what shortcuts cost; where the parameters sit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from export.catalog import find

if TYPE_CHECKING:
    from torch import nn

# The papers with large linear layers, and three that do without.
HEADS = ("alexnet_2012", "alexnet", "vgg16", "nin", "googlenet_2014", "resnet152")


@dataclass(frozen=True)
class Bottleneck:
    """A convolution that keeps the size ("same"), and the same after a 1×1 to fewer channels."""

    side: int  # pixels
    channels: int
    kernel: int
    filters: int
    reduced: int  # filters of the 1×1

    @property
    def direct(self) -> int:
        """Multiplications, as all of these."""
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
    """Each of side×side×filters outputs looks at kernel×kernel×channels numbers."""
    return side * side * filters * kernel * kernel * channels


@dataclass(frozen=True)
class Cost:
    """A network of the ResNet paper, and what it costs more than its plain counterpart."""

    network: str
    parameters: int
    macs: int
    more_parameters: int
    more_macs: int


def shortcut_costs() -> list[Cost]:
    """Without shortcuts, with padded ones (option A), with projections (option B: as published).

    The form for digits is the paper's for CIFAR-10, which has option A alone.
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


def _costs(networks: dict[str, nn.Module], channels: int, size: int) -> list[Cost]:
    """The plain one comes first."""
    from export.layers import describe_module

    totals = [
        describe_module(network.eval(), channels, size).totals for network in networks.values()
    ]
    plain = totals[0]
    return [
        Cost(
            name,
            each.parameters,
            each.macs,
            each.parameters - plain.parameters,
            each.macs - plain.macs,
        )
        for name, each in zip(networks, totals, strict=True)
    ]


@dataclass(frozen=True)
class Head:
    """How many of a network's parameters its linear layers hold."""

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
    bottleneck: Bottleneck
    shortcuts: list[Cost]
    linear_layers: list[Head]

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        figures = ("direct", "squeeze", "expand", "both", "times_fewer")
        return {
            "bottleneck": asdict(self.bottleneck)
            | {figure: getattr(self.bottleneck, figure) for figure in figures},
            "shortcuts": [asdict(cost) for cost in self.shortcuts],
            "linear_layers": [asdict(each) | {"share": each.share} for each in self.linear_layers],
        }


def learn(bottleneck: Bottleneck, names: Iterable[str]) -> Lessons:
    """All of them; the last one of the networks named."""
    return Lessons(bottleneck, shortcut_costs(), [head(name) for name in names])
