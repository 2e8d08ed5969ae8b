"""A user's ONNX file in fp32 to the same in fp16; networks of the catalog are exported in it.

Weights and what they are multiplied with become float16, and so do the file's float32 input and its
output. Operators that have no float16 keep float32, with casts around them.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, inliner

from export.errors import OnnxError


def to_fp16(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """`name` is the file's, for people.

    Raises:
        OnnxError: it cannot be converted.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        if copy.functions:  # whose insides the converter does not see
            copy = inliner.inline_local_functions(copy)
        converted: onnx.ModelProto = convert_float_to_float16(copy)
    except Exception as error:  # the converter's errors share no base class
        reason = " ".join(str(error).split())
        raise OnnxError(
            f"{name} cannot be converted to float16 ({reason}): leave out --fp16."
        ) from error
    if TensorProto.FLOAT16 not in {tensor.data_type for tensor in converted.graph.initializer}:
        raise OnnxError(
            f"{name} has no weights in float32 that --fp16 could convert: leave it out."
        )
    return converted
