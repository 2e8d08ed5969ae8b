"""Changes of a version's graph that make it hang."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def insert(model_path: Path, make_nodes: Callable[[str, str], list[onnx.NodeProto]]) -> None:
    """Lets the image pass through these nodes, which get the names of their input and output."""
    model = onnx.load(model_path)
    for node in model.graph.node:
        node.input[:] = ["passed" if name == "image" else name for name in node.input]
    nodes = make_nodes("image", "passed")
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    onnx.save(model, model_path)


def constant(name: str, value: Any) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(value)))


def loop_while_bright(path: Path) -> None:
    """Forever, unless the image is black."""
    body = helper.make_graph(
        [helper.make_node("Identity", [one], [other]) for one, other in (("c", "d"), ("x", "y"))],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.UINT8, None),
        ],
        [
            helper.make_tensor_value_info("d", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.UINT8, None),
        ],
    )
    insert(
        path / "1" / "model.onnx",
        lambda image, passed: [
            constant("times", 2**62),
            helper.make_node("Cast", [image], ["values"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["values"], ["brightest"], keepdims=0),
            helper.make_node("Cast", ["brightest"], ["is_bright"], to=TensorProto.BOOL),
            helper.make_node("Loop", ["times", "is_bright", image], [passed], body=body),
        ],
    )


def compute_one_node_for_an_hour(path: Path) -> None:
    """Which ONNX Runtime cannot end: the largest of 2000x2000 values, four million times."""
    side = 4000
    insert(
        path / "1" / "model.onnx",
        lambda image, passed: [
            constant("shape", [1, 1, side, side]),
            constant("axes", [0, 1, 2, 3]),
            helper.make_node("Cast", [image], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["pixels", "axes"], ["brightest"]),
            helper.make_node("Expand", ["brightest", "shape"], ["large"]),
            helper.make_node("MaxPool", ["large"], ["pooled"], kernel_shape=[side // 2, side // 2]),
            helper.make_node("ReduceMin", ["pooled", "axes"], ["least"]),
            helper.make_node("Cast", ["least"], ["least_pixel"], to=TensorProto.UINT8),
            helper.make_node("Min", ["least_pixel", image], [passed]),
        ],
    )
