"""The contract's graph around a user's: pixels in, probabilities out, its weights untouched.

    image uint8 N×H×W×3 → float32 → normalise → channels, layout, type, batch of the file
        → the file's own graph, each name with a prefix
        → N×K → softmax or sigmoid, where it gives logits → probabilities N×K, and batch_size N×1
                                                 and heat-maps and features, where its end allows

A file that takes B images at once gets N of them and B - N of zeros, whose answers are cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, inliner, numpy_helper, version_converter

from export.adoption.classifier import COLOURS, Classifier
from export.catalog import (
    BATCH_SIZE,
    FEATURES,
    HEATMAP_CLASSES,
    HEATMAPS,
    INPUT,
    MAX_HEATMAPS,
    PROBABILITIES,
    Activation,
    Network,
)
from export.conversion.to_onnx import check, strip_origin
from export.errors import AdoptionError

Scores = Literal["logits", "probabilities"]  # what a file gives

PREFIX = "adopted/"
# From this opset on, the operators around a file are what they are in the newest.
MIN_OPSET = 11
MIN_IR = 4  # in which weights need not be inputs


class Builder:
    """Nodes and constants of a graph, each named as what it makes."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def __call__(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Adds an operator; returns the name of its output."""
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, values: Any, dtype: Any = np.int64) -> str:
        self.constants.append(numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def reshape(self, tensor: str, shape: Sequence[int], output: str) -> str:
        return self("Reshape", [tensor, self.constant(f"{output}_shape", shape)], output)

    def cast(self, tensor: str, to: int, output: str) -> str:
        return self("Cast", [tensor], output, to=to)


def wrap(
    given: Classifier, network: Network, scores: Scores, activation: Activation = "softmax"
) -> onnx.ModelProto:
    """
    Raises:
        AdoptionError: its operators are too old, and cannot be replaced by newer ones.
        OnnxError: the result is not what serving needs.
    """
    model = _prefixed(given.file.model, given.file.name)
    graph, build = model.graph, Builder()
    count = _count_images(build)
    fed = _feed(build, given, network, count)
    before = [*build.nodes]
    build.nodes.clear()
    outputs = _read(build, given, activation if scores == "logits" else "", count)
    for node in graph.node:
        node.input[:] = [fed if name == PREFIX + given.input else name for name in node.input]
    inner = [*graph.node]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend([*before, *inner, *build.nodes])
    graph.initializer.extend(build.constants)
    shape = [given.size, given.size, COLOURS]
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", *shape]))
    graph.output.extend(outputs)
    _strip(model)
    check(model, (given.size, given.size, COLOURS), given.classes)
    return model


def _prefixed(given: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """A copy, of the opset that the operators around it need, with a prefix before each name."""
    model = onnx.ModelProto()
    model.CopyFrom(given)
    if model.functions:
        model = inliner.inline_local_functions(model)
    model = with_opset(model, MIN_OPSET, name)
    model.ir_version = max(model.ir_version, MIN_IR)
    compose.add_prefix(model, PREFIX, inplace=True)
    return model


def with_opset(model: onnx.ModelProto, minimum: int, name: str) -> onnx.ModelProto:
    """With newer operators if it has older ones; `name` is the file's, for people.

    Raises:
        AdoptionError: they cannot be replaced.
    """
    if opset(model) >= minimum:
        return model
    try:
        return version_converter.convert_version(model, minimum)
    except Exception as error:  # the converter's errors share no base class
        raise AdoptionError(
            f"{name} has operators of opset {opset(model)}, which cannot be converted to "
            f"{minimum}: {str(error).splitlines()[0]}. Export it again with a newer opset."
        ) from error


def opset(model: onnx.ModelProto) -> int:
    """That of the standard's operators."""
    return max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _strip(model: onnx.ModelProto) -> None:
    """Removes paths of the machine that exported; who wrote the file stays."""
    producer = model.producer_version
    strip_origin(model)
    model.producer_version = producer
    del model.graph.quantization_annotation[:], model.training_info[:]


# ------------------------------------------------------------------------------ before the file


def _count_images(build: Builder) -> str:
    """N, of length 1."""
    shape = build("Shape", [INPUT], "image_shape")
    return build("Gather", [shape, build.constant("first", [0])], "image_count", axis=0)


def _feed(build: Builder, given: Classifier, network: Network, count: str) -> str:
    """The file's input, of N images or as many as it demands."""
    values = INPUT
    if not given.takes_pixels:
        values = build.cast(values, TensorProto.FLOAT, "pixels")
        for operator, name, number in (
            ("Div", "white", 255),
            ("Sub", "mean", network.mean),
            ("Div", "std", network.std),
        ):
            number_of = build.constant(name, number, np.float32)
            values = build(operator, [values, number_of], f"after_{name}")
    if network.is_bgr:
        order = build.constant("blue_green_red", [2, 1, 0])
        values = build("Gather", [values, order], "reordered", axis=3)
    if given.layout == "NCHW":
        values = build("Transpose", [values], "laid_out", perm=[0, 3, 1, 2])
    if not given.takes_pixels and given.element_type != TensorProto.FLOAT:
        values = build.cast(values, given.element_type, "in_its_type")
    return _fill_batch(build, given, values, count) if given.batch else values


def _fill_batch(build: Builder, given: Classifier, values: str, count: str) -> str:
    """Followed by zeros, to the number that it demands; a negative number of these is an error."""
    if given.batch > 1:
        demanded = build.constant("demanded", [given.batch])
        missing = build("Sub", [demanded, count], "missing")
        shape = build.constant("image_as_fed", given.input_shape)
        shape = build("Concat", [missing, shape], "filling_shape", axis=0)
        zero = helper.make_tensor("zero", given.element_type, [1], [0])
        filling = build("ConstantOfShape", [shape], "filling", value=zero)
        values = build("Concat", [values, filling], "filled", axis=0)
    return build.reshape(values, [given.batch, *given.input_shape], "fixed_batch")


# ------------------------------------------------------------------------------ after the file


def _read(
    build: Builder, given: Classifier, activation: str, count: str
) -> list[onnx.ValueInfoProto]:
    """Makes the contract's outputs of the file's; returns them."""
    answer = _of_images(build, given, PREFIX + given.output, "answer", count)
    rows = build.reshape(answer, [-1, given.classes], "rows")
    if activation:
        rows = build.cast(rows, TensorProto.FLOAT, "logits")
    match activation:
        case "softmax":
            build("Softmax", [rows], PROBABILITIES, axis=1)
        case "sigmoid":
            build("Sigmoid", [rows], PROBABILITIES)
        case _:
            build.cast(rows, TensorProto.FLOAT, PROBABILITIES)
    number = build.cast(count, TensorProto.INT32, "image_count_int32")
    one = build.constant("one", [1])
    column = build("Concat", [count, one], "column", axis=0)
    build("Expand", [number, column], BATCH_SIZE)
    return [
        _output(PROBABILITIES, TensorProto.FLOAT, given.classes),
        _output(BATCH_SIZE, TensorProto.INT32, 1),
        *_read_evidence(build, given, count),
    ]


def _of_images(build: Builder, given: Classifier, tensor: str, name: str, count: str) -> str:
    """Without the rows of the filling."""
    if given.batch <= 1:
        return tensor
    start, axis = build.constant(f"{name}_start", [0]), build.constant(f"{name}_axis", [0])
    return build("Slice", [tensor, start, count, axis], name)


def _read_evidence(build: Builder, given: Classifier, count: str) -> list[onnx.ValueInfoProto]:
    """Heat-maps and features, as conversion/evidence.py explains them."""
    linear = given.ending.linear
    if linear is None:
        return []
    most = build.constant("most", [min(MAX_HEATMAPS, given.classes)])
    build.nodes.append(
        helper.make_node("TopK", [PROBABILITIES, most], ["best_scores", "best"], "best", axis=1)
    )
    build.cast("best", TensorProto.INT32, HEATMAP_CLASSES)
    maps = _of_images(build, given, PREFIX + linear.maps, "maps", count)
    if not linear.is_nchw:
        maps = build("Transpose", [maps], "maps_nchw", perm=[0, 3, 1, 2])
    maps = build.cast(maps, TensorProto.FLOAT, "maps_float32")
    height, width = given.map_size
    positions = build.reshape(maps, [0, 0, height * width], "positions")  # N×F×hw
    weights = PREFIX + linear.weights
    if linear.is_transposed:
        chosen = build("Gather", [weights, "best"], "columns", axis=1)  # F×N×M
        chosen = build("Transpose", [chosen], "best_rows", perm=[1, 2, 0])
    else:
        chosen = build("Gather", [weights, "best"], "best_rows", axis=0)  # N×M×F
    chosen = build.cast(chosen, TensorProto.FLOAT, "best_rows_float32")
    product = build("MatMul", [chosen, positions], "heatmaps_flat")
    build.reshape(product, [0, 0, height, width], HEATMAPS)
    features = _of_images(build, given, PREFIX + linear.features, "features_of_images", count)
    build.cast(features, TensorProto.FLOAT, FEATURES)
    shown = min(MAX_HEATMAPS, given.classes)
    return [
        _output(HEATMAPS, TensorProto.FLOAT, shown, height, width),
        _output(HEATMAP_CLASSES, TensorProto.INT32, shown),
        _output(FEATURES, TensorProto.FLOAT, given.features),
    ]


def _output(name: str, element_type: int, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element_type, ["batch", *shape])
