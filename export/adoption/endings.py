"""How a graph ends: with logits or probabilities, and whether heat-maps can be read off its end.

    maps → global average pooling → features → linear layer → logits → softmax or sigmoid

Operators between these that move no number, such as Flatten, are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

PASSED_OVER = {"Identity", "Cast", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze"}
LOG_PROBABILITIES = "LogSoftmax"  # softmax makes the same of them as of the logits
ACTIVATIONS = {"Softmax": "softmax", "Sigmoid": "sigmoid"}


@dataclass(frozen=True)
class LinearEnd:
    """Names of tensors in the graph."""

    maps: str  # N×C×h×w, or N×h×w×C
    is_nchw: bool
    features: str  # N×F
    weights: str
    is_transposed: bool  # weights are F×K in place of K×F
    bias: str  # empty if there is none
    logits: str  # N×K


@dataclass(frozen=True)
class Ending:
    last_operator: str  # such as "Gemm"
    activation: str  # "softmax", "sigmoid" or, where the last operator is neither, empty
    linear: LinearEnd | None  # where heat-maps can be read


class Makers:
    """Which operator makes which tensor."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._nodes = {output: node for node in graph.node for output in node.output}

    def __call__(self, tensor: str) -> onnx.NodeProto | None:
        """The operator that makes the numbers of a tensor, and not only their shape or type."""
        node = self._nodes.get(tensor)
        while node is not None and node.op_type in PASSED_OVER and node.input:
            node = self._nodes.get(node.input[0])
        return node


def constants(graph: onnx.GraphProto) -> dict[str, npt.NDArray[Any]]:
    """The matrices and vectors that a graph carries, by name."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return {name: numpy_helper.to_array(tensor) for name, tensor in found.items()}


def read_ending(graph: onnx.GraphProto, output: str) -> Ending:
    maker = Makers(graph)
    node = maker(output)
    if node is None:
        return Ending("", "", None)
    activation = ACTIVATIONS.get(node.op_type, "")
    logits = node.input[0] if activation else output
    return Ending(node.op_type, activation, _linear_end(maker, constants(graph), logits))


def _linear_end(
    maker: Makers, known: Mapping[str, npt.NDArray[Any]], logits: str
) -> LinearEnd | None:
    layer, bias = maker(logits), ""
    if layer is not None and layer.op_type == "Add":
        product = next((name for name in layer.input if name not in known), "")
        bias = next((name for name in layer.input if name in known), "")
        layer = maker(product)
    if layer is None or layer.op_type not in ("Gemm", "MatMul") or not _is_plain(layer):
        return None
    features, weights, *rest = layer.input
    bias = bias or "".join(rest)
    pooling = maker(features)
    if weights not in known or known[weights].ndim != 2 or pooling is None:
        return None
    axes = _mean_axes(pooling, known)
    if axes not in ((2, 3), (1, 2)) or (bias and bias not in known):
        return None
    is_transposed = layer.op_type == "MatMul" or not attributes(layer).get("transB")
    maps, is_nchw = pooling.input[0], axes == (2, 3)
    return LinearEnd(maps, is_nchw, features, weights, is_transposed, bias, logits)


def _is_plain(layer: onnx.NodeProto) -> bool:
    """Whether it multiplies, and adds, and nothing else."""
    of = attributes(layer)
    return of.get("alpha", 1.0) == 1 and of.get("beta", 1.0) == 1 and not of.get("transA")


def _mean_axes(pooling: onnx.NodeProto, known: Mapping[str, npt.NDArray[Any]]) -> tuple[int, ...]:
    """The axes of N×C×h×w or N×h×w×C over which it takes the mean; none if it does something else.

    AveragePool is taken for global pooling: whether its window is that large, the numbers show.
    """
    if pooling.op_type in ("GlobalAveragePool", "AveragePool"):
        return (2, 3)
    if pooling.op_type != "ReduceMean":
        return ()
    axes = attributes(pooling).get("axes")
    if axes is None and len(pooling.input) > 1:
        axes = known.get(pooling.input[1])
    return () if axes is None else tuple(sorted(int(axis) % 4 for axis in axes))


def attributes(node: onnx.NodeProto) -> Mapping[str, Any]:
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def class_maps(maps: npt.NDArray[Any], weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The class activation maps of all classes, N×K×h×w, from N×F×h×w and K×F."""
    result: npt.NDArray[Any] = np.einsum("nfhw,kf->nkhw", maps, weights)
    return result
