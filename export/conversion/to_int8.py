"""ONNX in fp32 to ONNX in int8, with the quantisation written out in the graph as Q/DQ nodes.

    x → QuantizeLinear → DequantizeLinear → Conv, Gemm or MatMul ← DequantizeLinear ← int8 weights

A runtime that knows the pattern computes in integers; any other returns the same answers more
slowly. Only layers with weights are quantised: cast, normalisation, transpose and softmax stay in
fp32, and inputs and outputs keep their types. Runtimes expect different patterns, so there is one
recipe per target, and the manifest names it.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx

from export.catalog import INPUT
from export.conversion.evidence import separate_class_weights
from export.conversion.to_onnx import check, strip_origin
from export.errors import OnnxError
from export.progress import SILENT, Reporter
from export.samples.images import Pixels

Target = Literal["cpu", "tensorrt"]

BATCH = 4  # images per calibration step: ResNet-152 takes 3.2 GB, and 5.0 GB with 8


@dataclass(frozen=True)
class QuantizationRecipe:
    text: str  # Manifest.precision_recipe
    signed: bool  # activations are int8 around 0, and not uint8 with a zero point
    weights_in_7_bits: bool  # -64 to 64
    operators: tuple[str, ...]  # their inputs and outputs are quantised
    outputs_in_fp32: tuple[str, ...]  # operators whose outputs are not
    bias_in_int32: bool


RECIPES: dict[Target, QuantizationRecipe] = {
    # ResNet-50 in ONNX Runtime with one thread, compared with fp32 (bench/int8.py): 3.1 to 3.3
    # times as fast with VNNI and 1.8 to 1.9 times without; with signed activations 1.1 to 1.4
    # times. A ReLU is quantised so that it merges into the zero point of the layer before, and so
    # is a ReLU6: what it cuts off must not widen the range (EfficientNet-Lite0: top-1 agrees with
    # fp32 for 90 % of 112 crops, and for 70 % with Clip in fp32). Sums,
    # pools and concatenations stay in fp32: in integers they round once more and gain nothing. CPUs
    # without VNNI add two products of uint8 and int8 in 16 bits, which overflow silently (LeNet-5:
    # a score was wrong by 0.16); weights of 7 bits prevent that, and every CPU returns the same.
    "cpu": QuantizationRecipe(
        text="int8 for cpu: Q/DQ, uint8 activations, int8 weights of 7 bits a channel, int32 bias, "
        "ranges by MinMax",
        signed=False,
        weights_in_7_bits=True,
        operators=("Conv", "Gemm", "MatMul", "Relu", "Clip"),
        outputs_in_fp32=("Gemm", "MatMul"),
        bias_in_int32=True,
    ),
    # TensorRT rejects zero points other than 0 and int32 bias, and fuses a layer with the next one
    # only if there is no Q/DQ between them: only inputs are quantised.
    "tensorrt": QuantizationRecipe(
        text="int8 for tensorrt: Q/DQ, int8 activations around 0, int8 weights a channel, "
        "fp32 bias, ranges by MinMax",
        signed=True,
        weights_in_7_bits=False,
        operators=("Conv", "Gemm", "MatMul"),
        outputs_in_fp32=("Conv", "Gemm", "MatMul"),
        bias_in_int32=False,
    ),
}


def to_int8(
    fp32_path: Path,
    path: Path,
    images: Pixels,
    target: Target,
    reporter: Reporter = SILENT,
) -> None:
    """Writes the graph of `fp32_path` in int8 to `path`, with ranges measured on the images.

    Raises:
        OnnxError: it cannot be quantised, or the result is not the graph that serving needs.
    """
    fp32 = onnx.load(fp32_path)
    with tempfile.TemporaryDirectory(prefix="convoy-int8-") as folder:
        quantised_path = Path(folder, "model.onnx")
        try:
            with _quiet():
                _quantise(fp32, quantised_path, images, RECIPES[target], reporter)
        # They share no class: ONNX Runtime's own, ValueError, AssertionError, KeyError and others.
        except Exception as error:
            reason = " ".join(str(error).split())
            raise OnnxError(
                f"{fp32_path.name} cannot be quantised for {target} ({reason}): build it in fp16 "
                "or fp32."
            ) from error
        model = onnx.load(quantised_path)
    strip_origin(model)
    model.producer_name = fp32.producer_name
    check(model, *_shape_and_classes(fp32))
    path.write_bytes(model.SerializeToString(deterministic=True))


def _quantise(
    fp32: onnx.ModelProto,
    path: Path,
    images: Pixels,
    recipe: QuantizationRecipe,
    reporter: Reporter,
) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    _count_no_padding(fp32)
    separate_class_weights(fp32)
    quantize_static(
        fp32,
        path,
        _Reader(images, reporter),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(recipe.operators),
        nodes_to_exclude=_products_of_activations(fp32),
        per_channel=True,
        activation_type=QuantType.QInt8 if recipe.signed else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        reduce_range=recipe.weights_in_7_bits,
        # On the trained digit networks MinMax, Entropy and Percentile agree with fp32 equally well
        # (for all but 0 or 1 of 360 digits), and only MinMax keeps two numbers per tensor instead
        # of the whole tensor.
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={
            "ActivationSymmetric": recipe.signed,
            "WeightSymmetric": True,
            "QuantizeBias": recipe.bias_in_int32,
            "OpTypesToExcludeOutputQuantization": list(recipe.outputs_in_fp32),
        },
    )


def _count_no_padding(model: onnx.ModelProto) -> None:
    """Makes average pools without padding exclude it from their count.

    Where the last window extends beyond the edge (ceil_mode, in Network in Network), ONNX Runtime
    1.32 would otherwise divide by the whole window in integers, and by the part inside in fp32.
    """
    for node in model.graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "AveragePool" and not any(attributes["pads"].ints):
            attributes["count_include_pad"].i = 0


def _products_of_activations(model: onnx.ModelProto) -> list[str]:
    """The names of products without weights, such as those of heat-maps and of attention."""
    weights = {tensor.name for tensor in model.graph.initializer}
    products = []
    for node in model.graph.node:
        if node.op_type == "MatMul" and weights.isdisjoint(node.input):
            node.name = node.name or node.output[0]
            products.append(node.name)
    return products


class _Reader:
    """Gives the images to the quantiser, batch by batch, and reports the progress."""

    def __init__(self, images: Pixels, reporter: Reporter) -> None:
        self.images, self.reporter = images, reporter
        self.at = 0

    def get_next(self) -> dict[str, Any] | None:
        self.reporter.progress("calibration", self.at, len(self.images))
        if self.at == len(self.images):
            return None
        batch = self.images[self.at : self.at + BATCH]
        self.at += len(batch)
        return {INPUT: batch}


def _shape_and_classes(model: onnx.ModelProto) -> tuple[tuple[int, int, int], int]:
    """Returns H×W×C of the input, and K."""
    image, probabilities = (
        [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (model.graph.input[0], model.graph.output[0])
    )
    _, height, width, channels = image
    return (height, width, channels), probabilities[1]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the quantiser, which warns on the root logger and so would configure logging."""
    root, silent = logging.getLogger(), logging.NullHandler()
    level = root.level
    root.addHandler(silent)
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.removeHandler(silent)
        root.setLevel(level)
