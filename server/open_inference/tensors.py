"""The tensors that every model has in this protocol, and the images and numbers in them.

image  BYTES  [N] or [N, 1]   encoded images
label  BYTES  [N, k]          score FP32 [N, k]          index INT32 [N, k]
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import service_pb2

from convoy.v1 import classifier_pb2 as pb
from server.errors import MalformedRequest, cut, quote

INPUT = "image"
OUTPUTS = {"label": "BYTES", "score": "FP32", "index": "INT32"}
DECODED_AT_ONCE = 1 << 18  # characters, a multiple of four
LENGTH = struct.Struct("<I")  # before each element of a BYTES tensor in its binary form


# ---------------------------------------------------------------- in


def read_images(request: service_pb2.ModelInferRequest, max_images: int) -> list[bytes]:
    """The encoded images of a request.

    Raises:
        MalformedRequest: it has another input, or its shape has another number of images.
    """
    tensor = find_input(request)
    count = parse_count(tensor.shape, max_images)
    if request.raw_input_contents:
        elements = split(request.raw_input_contents[0], count)
    elif len(tensor.contents.bytes_contents) == count:
        elements = list(tensor.contents.bytes_contents)
    else:
        n_elements = len(tensor.contents.bytes_contents)
        raise wrong_input(f"has the shape {cut(str(list(tensor.shape)))} and {n_elements} elements")
    if "content_type" in tensor.parameters:
        elements = [decode(element) for element in elements]
    return elements


def find_input(request: service_pb2.ModelInferRequest) -> Any:
    inputs = [f"{tensor.name} {tensor.datatype}" for tensor in request.inputs]
    if inputs != [f"{INPUT} BYTES"] or len(request.raw_input_contents) > 1:
        raise MalformedRequest(
            f"the inputs are {cut(', '.join(inputs)) or 'none'}; there must be one, {INPUT}, of "
            "the type BYTES: encoded images",
            field="inputs",
        )
    (tensor,) = request.inputs
    check_parameters(tensor.parameters, {"content_type"}, "the input")
    content_type = tensor.parameters.get("content_type")
    if content_type:
        check_content_type(content_type.string_param)
    return tensor


def check_content_type(content_type: object) -> None:
    """MLServer declares so what the elements of a tensor are."""
    if content_type != "base64":
        raise wrong_input(f"has the content_type {cut(repr(content_type))}, must be base64")


def parse_count(shape: Sequence[int], max_images: int) -> int:
    if (
        len(shape) not in (1, 2)
        or list(shape[1:]) not in ([], [1])
        or not 1 <= shape[0] <= max_images
    ):
        raise wrong_input(
            f"has the shape {cut(str(list(shape)))}, must be [N] or [N, 1], where N is 1 to "
            f"{max_images}"
        )
    return shape[0]


def split(raw: bytes, count: int) -> list[bytes]:
    """The elements of a BYTES tensor in its binary form: a length before each."""
    elements = []
    offset = 0
    for _ in range(count):
        start = offset + LENGTH.size
        if start > len(raw) or start + LENGTH.unpack_from(raw, offset)[0] > len(raw):
            raise wrong_input("is cut off: its binary form has 4 bytes of length before each image")
        offset = start + LENGTH.unpack_from(raw, offset)[0]
        elements.append(raw[start:offset])
    if offset < len(raw):
        raise wrong_input(f"has {len(raw) - offset} bytes behind the {count} of its shape")
    return elements


def decode(element: bytes | str) -> bytes:
    """From base64, piece by piece: all at once would keep the interpreter from all else."""
    starts = range(0, len(element), DECODED_AT_ONCE)
    pieces = [element[start : start + DECODED_AT_ONCE] for start in starts]
    try:
        return b"".join([base64.b64decode(piece, validate=True) for piece in pieces])
    except ValueError as error:
        raise wrong_input(f"is not base64 ({error})") from error


def wrong_input(what: str) -> MalformedRequest:
    return MalformedRequest(f"{INPUT} {what}", field=INPUT)


def check_parameters(parameters: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """
    Raises:
        MalformedRequest: there is an unknown one; to ignore it would mislead the client.
    """
    if any(name.startswith("shared_memory") for name in parameters):
        raise MalformedRequest(
            "shared memory is not supported: send the images in the request", field=INPUT
        )
    if "classification" in parameters:
        raise MalformedRequest(
            "classification is not supported: label, score and index are the best classes already; "
            "the request's parameter top_k sets how many",
            field="classification",
        )
    for name in parameters:
        if name not in known:
            allowed = ", ".join(sorted(known)) or "(none)"
            raise MalformedRequest(
                f"{where} has the unknown parameter {quote(name)}; allowed: {allowed}", field=name
            )


# ---------------------------------------------------------------- out


@dataclass(frozen=True)
class Tensor:
    """An output."""

    name: str
    shape: tuple[int, int]  # N, k
    values: list[Any]  # row after row: str, float or int

    @property
    def datatype(self) -> str:
        return OUTPUTS[self.name]

    def binary(self) -> bytes:
        """Its binary form, the same on both wires."""
        if self.name == "label":
            encoded = [label.encode() for label in self.values]
            return b"".join(LENGTH.pack(len(label)) + label for label in encoded)
        kind = "f" if self.name == "score" else "i"
        return struct.pack(f"<{len(self.values)}{kind}", *self.values)


def to_tensors(answers: Sequence[pb.ClassifyResponse], names: Sequence[str]) -> list[Tensor]:
    """The outputs of a batch, in the order of their names; all of them have the same k."""
    shape = (len(answers), len(answers[0].classes))
    return [
        Tensor(name, shape, [getattr(best, name) for answer in answers for best in answer.classes])
        for name in names
    ]


def output_names(request: service_pb2.ModelInferRequest) -> list[str]:
    """The outputs that a request asks for; all of them if it names none.

    Raises:
        MalformedRequest: there is no such output, or it has an unknown parameter.
    """
    for output in request.outputs:
        if output.name not in OUTPUTS:
            raise MalformedRequest(
                f"there is no output {quote(output.name)}, there are {', '.join(OUTPUTS)}",
                field="outputs",
            )
        check_parameters(output.parameters, {"binary_data"}, f"the output {output.name}")
    return [output.name for output in request.outputs] or list(OUTPUTS)
