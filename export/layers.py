"""Counts a network's layers: shapes, parameters, multiplications.

The network runs once on PyTorch's meta device, which computes shapes alone, so that even VGG takes
no time and no memory. The conventions: MACs are the multiplications of convolution and linear
layers for one image, without biases, norms, pools and activations; parameters are what training
changes, without running statistics. Both are counted as in the papers, for the network as it is
served.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

from export.catalog import Network, build
from export.errors import PreparationError

if TYPE_CHECKING:
    from torch import Tensor, nn

# The modules that are rows, by the names of their classes: torch need not be there to read them.
KINDS = {
    "Conv2d": "convolution",
    "Linear": "linear",
    "BatchNorm2d": "batch norm",
    "LocalResponseNorm": "response norm",
    "MaxPool2d": "max pool",
    "AvgPool2d": "average pool",
    "AdaptiveAvgPool2d": "average pool",
    "SubSampling": "sub-sampling",
    "SparseConvolution": "convolution",
    "RadialBasis": "distances",
}
WEIGHT_LAYERS = ("convolution", "linear")


@dataclass(frozen=True)
class Layer:
    name: str  # in the network's attributes, and so in its state dict
    kind: str
    kernel: tuple[int, ...] | None  # height, width
    stride: tuple[int, ...] | None
    padding: tuple[int, ...] | None
    groups: int | None
    output: tuple[int, ...]  # C×H×W, or features
    parameters: int
    weights: int  # of the parameters, those that multiply an input: no biases, no norms
    macs: int
    connections: int  # the inputs and the bias of each output: what the LeNet-5 paper counts

    @property
    def activations(self) -> int:
        """How many numbers the layer puts out."""
        return math.prod(self.output)


@dataclass(frozen=True)
class Block:
    """A part of the network: a row of the GoogLeNet paper's table 1, a stage of a ResNet."""

    name: str
    output: tuple[int, ...]
    branches: dict[str, list[int]]  # of an inception module: channels after each convolution
    parameters: int
    weights: int
    macs: int


@dataclass(frozen=True)
class Totals:
    parameters: int
    macs: int
    neurons: int  # activations of the convolution and linear layers, as the AlexNet paper counts
    connections: int


@dataclass(frozen=True)
class Description:
    layers: list[Layer]  # in the order in which an image reaches them
    outputs: dict[str, tuple[int, ...]]  # of the network's direct parts

    @property
    def blocks(self) -> list[Block]:
        """The layers by the network's direct parts; a layer may be one itself."""
        parts = groupby(self.layers, key=lambda layer: layer.name.partition(".")[0])
        return [_block(name, self.outputs[name], list(layers)) for name, layers in parts]

    @property
    def totals(self) -> Totals:
        return Totals(
            parameters=sum(layer.parameters for layer in self.layers),
            macs=sum(layer.macs for layer in self.layers),
            neurons=sum(layer.activations for layer in self.layers if layer.kind in WEIGHT_LAYERS),
            connections=sum(layer.connections for layer in self.layers),
        )


def parameters(network: nn.Module) -> int:
    """The number of trainable numbers, without running statistics and fixed weights."""
    return sum(parameter.numel() for parameter in network.parameters())


def macs(network: nn.Module, channels: int, size: int) -> int:
    """Multiplications of one image's convolutions and linear layers, as the papers count them."""
    return describe_module(network, channels, size).totals.macs


def describe_module(network: nn.Module, channels: int, size: int) -> Description:
    """The layers of any network in eval mode, for one square image."""
    import torch
    from torch.func import functional_call
    from torch.nn import Parameter

    layers: list[Layer] = []
    outputs: dict[str, tuple[int, ...]] = {}
    names = {module: name for name, module in network.named_modules()}

    def record(module: nn.Module, _: Any, output: Tensor) -> None:
        name = names[module]
        if type(module).__name__ in KINDS:
            layers.append(_layer(name, module, output))
        if "." not in name:
            outputs[name] = tuple(output.shape[1:])

    without_numbers = {
        **{name: Parameter(tensor.to("meta")) for name, tensor in network.named_parameters()},
        **{name: tensor.to("meta") for name, tensor in network.named_buffers()},
    }
    hooks = [module.register_forward_hook(record) for module in names if module is not network]
    try:
        with torch.inference_mode():
            image = torch.zeros(1, channels, size, size, device="meta")
            functional_call(network, without_numbers, (image,))
    finally:
        for hook in hooks:
            hook.remove()
    return Description(layers, outputs)


def check_size(module: nn.Module, network: Network) -> None:
    """
    Raises:
        PreparationError: it does not read images of the size that the network's row has.
    """
    try:
        describe_module(module, network.channels, network.size)
    except RuntimeError as error:
        raise PreparationError(
            f"{network.name} does not read {network.size}×{network.size} pixels: leave --crop out, "
            "or give the size that it was trained with."
        ) from error


def describe_network(network: Network) -> Description:
    """The layers of a network of the catalog, as it is served."""
    return _describe(network.architecture, network.channels, network.size)


@cache  # a page asks for each network more than once
def _describe(architecture: str, channels: int, size: int) -> Description:
    import torch

    with torch.device("meta"):
        module = build(architecture).eval()
    return describe_module(module, channels, size)


def _layer(name: str, module: nn.Module, output: Tensor) -> Layer:
    weights, macs, connections = _work(module, output)
    return Layer(
        name=name,
        kind=KINDS[type(module).__name__],
        **_geometry(module),
        groups=getattr(module, "groups", None),
        output=tuple(output.shape[1:]),
        parameters=parameters(module),
        weights=weights,
        macs=macs,
        connections=connections,
    )


def _work(module: nn.Module, output: Tensor) -> tuple[int, int, int]:
    """Weights, multiplications and connections of one image."""
    positions = output[0, 0].numel()  # where the same weights apply: H×W, or 1
    match type(module).__name__:
        case "Conv2d" | "Linear" | "SparseConvolution":
            weights = module.get_parameter("weight").numel()
        case "SubSampling":  # each output is a sum of four pixels; its products are not counted
            return 0, 0, (4 + 1) * output.numel()
        case "RadialBasis":
            return 0, 0, module.get_buffer("codes").numel()
        case _:
            return 0, 0, 0
    biases = parameters(module) - weights
    return weights, weights * positions, (weights + biases) * positions


def _geometry(module: nn.Module) -> dict[str, tuple[int, ...] | None]:
    """Height and width of the kernel, the stride and the padding."""
    match type(module).__name__:
        case "SparseConvolution":
            kernel = tuple(module.get_parameter("weight").shape[1:])
            return {"kernel": kernel, "stride": (1, 1), "padding": (0, 0)}
        case "SubSampling":
            return {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0)}
    attributes = {"kernel": "kernel_size", "stride": "stride", "padding": "padding"}
    return {name: _pair(getattr(module, attribute, None)) for name, attribute in attributes.items()}


def _pair(value: int | tuple[int, ...] | None) -> tuple[int, ...] | None:
    return (value, value) if isinstance(value, int) else value


def _block(name: str, output: tuple[int, ...], layers: list[Layer]) -> Block:
    return Block(
        name=name,
        output=output,
        branches=_branches(layers),
        parameters=sum(layer.parameters for layer in layers),
        weights=sum(layer.weights for layer in layers),
        macs=sum(layer.macs for layer in layers),
    )


def _branches(layers: list[Layer]) -> dict[str, list[int]]:
    """`inception3a.branch2.1.conv`, `Mixed_5b.branch3x3dbl_2.conv`: the second word, unnumbered."""
    branches: dict[str, list[int]] = {}
    for layer in layers:
        branch = re.match(r"\w+\.(branch\w*?)(_\d[ab]?)?\.", layer.name)
        if branch and layer.kind == "convolution":
            branches.setdefault(branch[1], []).append(layer.output[0])
    return branches
