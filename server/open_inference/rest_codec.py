"""The JSON and the binary tensors of /v2, as the messages of the same protocol over gRPC."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError
from starlette.responses import Response
from tritonclient.grpc import service_pb2

from server.core.bounds import Bounds, check_json
from server.errors import MalformedRequest, cut, quote
from server.open_inference.inference import InferenceAnswer
from server.open_inference.tensors import INPUT, OUTPUTS, check_content_type, decode

M = TypeVar("M", bound=BaseModel)

HEADER_LENGTH = "inference-header-content-length"
MAX_DIGITS = 18

# ---------------------------------------------------------------- requests

Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class RequestPart(BaseModel):
    """A part of a request in JSON; other fields are ignored."""

    parameters: dict[str, bool | Int64 | float | str] | None = None


class RequestedInput(RequestPart):
    name: str
    shape: list[Int64]
    datatype: str
    data: list[str] | list[list[str]] | None = None


class RequestedOutput(RequestPart):
    name: str


class InferRequest(RequestPart):
    id: str = ""
    inputs: list[RequestedInput]
    outputs: list[RequestedOutput] = []


class IndexRequest(BaseModel):
    ready: bool = False


def parse_infer_request(content: bytes, header_length: str | None, bounds: Bounds) -> Any:
    """
    Raises:
        MalformedRequest: the body is not a valid inference request.
    """
    length = parse_length(header_length, len(content))
    if length == 0:
        return image_message(content)
    request = validate(InferRequest, content[:length], bounds)
    message = service_pb2.ModelInferRequest(id=request.id)
    set_parameters(message.parameters, request)
    for output in request.outputs:
        set_parameters(message.outputs.add(name=output.name).parameters, output)
    binary = memoryview(content)[length:]
    for tensor in request.inputs:
        binary = binary[add_input(message, tensor, binary) :]
    if binary:
        raise MalformedRequest(f"{len(binary)} bytes are left over after the inputs")
    return message


def parse_length(text: str | None, n_bytes: int) -> int:
    """The number of bytes of JSON at the beginning of the body."""
    if text is None:
        return n_bytes
    if not (text.isdecimal() and len(text) <= MAX_DIGITS and int(text) <= n_bytes):
        raise MalformedRequest(
            f"Inference-Header-Content-Length is {quote(text)}, must be a number of bytes, at "
            f"most the {n_bytes} of the body"
        )
    return int(text)


def image_message(content: bytes) -> Any:
    """Triton's "raw binary request": no JSON, and the body is the one element of the one input."""
    message = service_pb2.ModelInferRequest()
    tensor = message.inputs.add(name=INPUT, datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(content)
    return message


def add_input(message: Any, request: RequestedInput, binary: memoryview) -> int:
    """Adds a tensor to the message; returns how many bytes after the JSON it takes."""
    parameters = dict(request.parameters or {})
    size = parameters.pop("binary_data_size", None)
    tensor = message.inputs.add(name=request.name, datatype=request.datatype, shape=request.shape)
    if size is None:
        # JSON has no bytes, and no image format is text: a string is base64, declared or not.
        check_content_type(parameters.pop("content_type", "base64"))
        set_parameters(tensor.parameters, RequestPart(parameters=parameters))
        for item in request.data or []:
            strings = [item] if isinstance(item, str) else item
            tensor.contents.bytes_contents.extend(decode(string) for string in strings)
        return 0
    set_parameters(tensor.parameters, RequestPart(parameters=parameters))
    if not (isinstance(size, int) and 0 <= size <= len(binary)):
        raise MalformedRequest(
            f"binary_data_size is {quote(str(size))}, but only {len(binary)} bytes follow",
            field=request.name,
        )
    message.raw_input_contents.append(bytes(binary[:size]))
    return size


def set_parameters(parameters: Any, part: RequestPart) -> None:
    kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    for name, value in (part.parameters or {}).items():
        setattr(parameters[name], kinds[type(value)], value)


def validate(kind: type[M], content: bytes, bounds: Bounds) -> M:
    """
    Raises:
        MalformedRequest: the JSON is not a valid object of this kind.
    """
    check_json(content, "data", bounds)
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        what = f"{where}: {first['msg']}" if where else first["msg"]
        raise MalformedRequest(
            f"the body is not a valid inference request: {cut(what)}", field=where or "body"
        ) from error


# ---------------------------------------------------------------- answers


def to_response(message: Any, answer: InferenceAnswer) -> Response:
    """JSON, followed by the outputs that the client wants in binary form."""
    in_binary = binary_outputs(message)
    outputs = []
    pieces = []
    for tensor in answer.outputs:
        fields: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.shape,
        }
        if tensor.name in in_binary:
            pieces.append(tensor.binary())
            fields["parameters"] = {"binary_data_size": len(pieces[-1])}
        else:
            fields["data"] = tensor.values
        outputs.append(fields)
    body = {
        "model_name": answer.model,
        "model_version": answer.version,
        "parameters": answer.parameters,
        "outputs": outputs,
    }
    if message.id:
        body["id"] = message.id
    text = json.dumps(body).encode()
    if not pieces:
        return Response(text, media_type="application/json")
    headers = {HEADER_LENGTH: str(len(text))}
    return Response(b"".join([text, *pieces]), 200, headers, "application/octet-stream")


def binary_outputs(message: Any) -> set[str]:
    """Names of outputs: each one sets it for itself, or the request sets it for all."""
    for_all = message.parameters["binary_data_output"].bool_param
    if not message.outputs:
        return set(OUTPUTS) if for_all else set()
    return {
        output.name
        for output in message.outputs
        if (
            output.parameters["binary_data"].bool_param
            if "binary_data" in output.parameters
            else for_all
        )
    }
