"""In which precision a file is published: its own, or one that is made of its float32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto

from export.adoption.classifier import Classifier
from export.adoption.onnx_file import all_nodes, tensors
from export.conversion.to_fp16 import to_fp16
from export.errors import AdoptionError
from export.options import Precision

NAMES: dict[Precision, str] = {"fp32": "float32", "fp16": "float16", "int8": "integers"}
QUANTISED = ("QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul")


def precision_of(model: onnx.ModelProto) -> Precision:
    """That of most of its weights."""
    if any(node.op_type in QUANTISED for node in all_nodes(model.graph.node)):
        return "int8"
    sizes: dict[int, int] = {TensorProto.FLOAT: 0, TensorProto.FLOAT16: 0}
    for tensor in tensors(model.graph):
        if tensor.data_type in sizes:
            sizes[tensor.data_type] += int(np.prod(tensor.dims))
    return "fp16" if sizes[TensorProto.FLOAT16] > sizes[TensorProto.FLOAT] else "fp32"


def decide_precision(given: Classifier, asked: Precision) -> Precision:
    """`asked` is fp32 if nothing was.

    Raises:
        AdoptionError: it cannot be made of the file's own.
    """
    own = precision_of(given.file.model)
    if asked != "fp32" and own != "fp32":
        raise AdoptionError(
            f"{given.file.name} is in {NAMES[own]}, and --{asked} is made of float32: leave it out "
            "to serve the file as it is, or export it in float32."
        )
    return own if asked == "fp32" else asked


def in_fp16(given: Classifier) -> Classifier:
    """The same, which takes float16 in place of float32.

    Raises:
        OnnxError: it cannot be converted.
    """
    model = to_fp16(given.file.model, given.file.name)
    (image,) = (value for value in model.graph.input if value.name == given.input)
    return replace(
        given,
        file=replace(given.file, model=model),
        element_type=image.type.tensor_type.elem_type,
    )
