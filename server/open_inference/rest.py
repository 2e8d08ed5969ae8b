"""The HTTP door of the Open Inference Protocol: /v2, in JSON or with Triton's binary tensors."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tritonclient.grpc import service_pb2

from convoy.v1 import classifier_pb2 as pb
from server.core.admission import ByteReservation
from server.core.classifier import check_options
from server.errors import MalformedRequest
from server.http_api.app import arriving
from server.http_api.requests import (
    body_too_large,
    bounded,
    check_json_values,
    left_s,
    request_id_of,
    while_somebody_waits,
)
from server.open_inference import metadata
from server.open_inference.inference import VALUE_BYTES, Answer, OpenInference, aside
from server.open_inference.tensors import INPUT, OUTPUTS, check_content_type, decode

HEADER_LENGTH = "inference-header-content-length"
INFLATED_AT_ONCE_BYTES = 1 << 20

Endpoint = Callable[[Request], Awaitable[Response]]


def open_inference_routes(service: OpenInference) -> list[Route]:
    """Its endpoints; errors are for the exception handlers of the application they go into."""
    pool = service.pool

    async def infer(request: Request) -> Response:
        with service.admission.body() as body:
            async with arriving(request, service.classifier):
                content = await read_body(request, body, service.max_request_bytes)
                length = request.headers.get(HEADER_LENGTH)
                message = await aside(len(content), parse, content, length)
                message.id = message.id or request.headers.get("x-request-id", "")
                # Before it is what the answer's header says.
                check_options(pb.ClassifyRequest(request_id=message.id))
            message.model_name, message.model_version = model_of(request)
            request.state.request_id = message.id or request_id_of(request)
            answering = service.answer(
                message, len(content), left_s(request), request.state.request_id
            )
            answer = await while_somebody_waits(request, answering)
            n_values = sum(len(tensor.values) for tensor in answer.outputs)
            return await aside(n_values * VALUE_BYTES, response_of, message, answer)

    async def live(request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(request: Request) -> Response:
        is_ready = service.is_ready()
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    async def model_ready(request: Request) -> Response:
        servable = pool.resolve(*model_of(request))
        return JSONResponse({"name": servable.model, "ready": True})

    async def server_metadata(request: Request) -> Response:
        return JSONResponse(metadata.server_metadata())

    async def model_metadata(request: Request) -> Response:
        return JSONResponse(metadata.model_metadata(pool, *model_of(request)))

    async def model_config(request: Request) -> Response:
        size = service.max_batch_requests
        return JSONResponse(metadata.model_config(pool, *model_of(request), size))

    async def model_statistics(request: Request) -> Response:
        return JSONResponse(metadata.model_statistics(pool, service.statistics, *model_of(request)))

    async def repository_index(request: Request) -> Response:
        with service.admission.body() as body:
            content = await read_body(request, body, service.max_request_bytes)
        asked = validated(IndexRequest, content or b"{}")
        return JSONResponse(metadata.repository_index(pool, only_ready=asked.ready))

    return [
        Route("/v2", server_metadata),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        Route("/v2/models/stats", model_statistics),
        Route("/v2/repository/index", repository_index, methods=["POST"]),
        *of_each_model("/infer", infer, "POST"),
        *of_each_model("/ready", model_ready),
        *of_each_model("/config", model_config),
        *of_each_model("/stats", model_statistics),
        *of_each_model("", model_metadata),
        *refused(),
    ]


def of_each_model(path: str, endpoint: Endpoint, method: str = "GET") -> Iterator[Route]:
    for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        yield Route(f"{prefix}{path}", endpoint, methods=[method])


def model_of(request: Request) -> tuple[str, str]:
    """Name and version; empty where the path has none."""
    return request.path_params.get("model", ""), request.path_params.get("version", "")


def refused() -> Iterator[Route]:
    """What Triton lets clients do, and nobody may do here: no such routes, and the reason."""
    for path, reason in (
        ("/v2/repository/models/{rest:path}", metadata.NO_CONTROL),
        ("/v2/systemsharedmemory/{rest:path}", metadata.NO_SHARED_MEMORY),
        ("/v2/cudasharedmemory/{rest:path}", metadata.NO_SHARED_MEMORY),
        ("/v2/trace/setting", metadata.NO_SETTINGS),
        ("/v2/models/{model}/trace/setting", metadata.NO_SETTINGS),
        ("/v2/logging", metadata.NO_SETTINGS),
    ):
        yield Route(path, refusing(reason), methods=["GET", "POST"])


def refusing(reason: str) -> Endpoint:
    async def refuse(request: Request) -> Response:
        raise HTTPException(404, reason)

    return refuse


# ---------------------------------------------------------------- requests


Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class RequestPart(BaseModel):
    """A part of a request in JSON; what it has besides is passed over."""

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


async def read_body(request: Request, body: ByteReservation, max_request_bytes: int) -> bytes:
    """The body, inflated if it comes compressed, and held by `body`.

    Raises:
        MalformedRequest, ImageTooLarge, Overloaded: it cannot be read, or there is no room for it.
    """
    content = b"".join([chunk async for chunk in bounded(request, body, max_request_bytes)])
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding == "identity":
        return content
    if encoding not in ("gzip", "deflate"):
        raise MalformedRequest(f"the content-encoding is {encoding!r}, must be gzip or deflate")
    return await inflate(content, body, max_request_bytes)


async def inflate(content: bytes, body: ByteReservation, max_request_bytes: int) -> bytes:
    """Piece by piece, so that a small body does not become a large one unseen."""
    inflating = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)  # gzip or zlib, whichever it is
    pieces: list[bytes] = []
    n_bytes = 0
    while not inflating.eof:
        try:
            piece = await asyncio.to_thread(inflating.decompress, content, INFLATED_AT_ONCE_BYTES)
        except zlib.error as error:
            raise MalformedRequest(f"the body cannot be inflated: {error}") from error
        if not piece and not inflating.eof:
            raise MalformedRequest("the body cannot be inflated: it is cut off")
        n_bytes += len(piece)
        if n_bytes > max_request_bytes:
            raise body_too_large(f"{n_bytes} or more", max_request_bytes)
        body.add(len(piece))
        pieces.append(piece)
        content = inflating.unconsumed_tail
    return b"".join(pieces)


def parse(content: bytes, header_length: str | None) -> Any:
    """The request as the message of the gRPC door, which is the same.

    Raises:
        MalformedRequest: it is none.
    """
    length = length_of(header_length, len(content))
    if length == 0:
        return message_of_image(content)
    asked = validated(InferRequest, content[:length])
    message = service_pb2.ModelInferRequest(id=asked.id)
    set_parameters(message.parameters, asked)
    for output in asked.outputs:
        set_parameters(message.outputs.add(name=output.name).parameters, output)
    binary = memoryview(content)[length:]
    for tensor in asked.inputs:
        binary = binary[add_input(message, tensor, binary) :]
    if binary:
        raise MalformedRequest(f"{len(binary)} bytes are left over behind the inputs")
    return message


def length_of(text: str | None, n_bytes: int) -> int:
    """Bytes of JSON at the body's beginning."""
    if text is None:
        return n_bytes
    if not (text.isdecimal() and int(text) <= n_bytes):
        raise MalformedRequest(
            f"Inference-Header-Content-Length is {text!r}, must be a number of bytes, at most the "
            f"body's, which are {n_bytes}"
        )
    return int(text)


def message_of_image(content: bytes) -> Any:
    """Triton's "raw binary request": no JSON, and the body is the one element of the one input."""
    message = service_pb2.ModelInferRequest()
    tensor = message.inputs.add(name=INPUT, datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(content)
    return message


def add_input(message: Any, asked: RequestedInput, binary: memoryview) -> int:
    """Adds a tensor to the message; how many bytes behind the JSON are its own."""
    given = dict(asked.parameters or {})
    size = given.pop("binary_data_size", None)
    tensor = message.inputs.add(name=asked.name, datatype=asked.datatype, shape=asked.shape)
    if size is None:
        # JSON has no bytes, and no format of images is text: a string is base64, said or not.
        check_content_type(given.pop("content_type", "base64"))
        set_parameters(tensor.parameters, RequestPart(parameters=given))
        for item in asked.data or []:
            strings = [item] if isinstance(item, str) else item
            tensor.contents.bytes_contents.extend(decode(string) for string in strings)
        return 0
    set_parameters(tensor.parameters, RequestPart(parameters=given))
    if not (isinstance(size, int) and 0 <= size <= len(binary)):
        raise MalformedRequest(
            f"binary_data_size is {size!r}, and {len(binary)} bytes are there", field=asked.name
        )
    message.raw_input_contents.append(bytes(binary[:size]))
    return size


def set_parameters(parameters: Any, part: RequestPart) -> None:
    kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    for name, value in (part.parameters or {}).items():
        setattr(parameters[name], kinds[type(value)], value)


Asked = TypeVar("Asked", bound=BaseModel)


def validated(kind: type[Asked], content: bytes) -> Asked:
    check_json_values(content)
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MalformedRequest(
            f"the body is no inference request: {where + ': ' if where else ''}{first['msg']}",
            field=where or "body",
        ) from error


# ---------------------------------------------------------------- answers


def response_of(message: Any, answer: Answer) -> Response:
    """JSON, and behind it the outputs that the client wants in binary form."""
    in_binary = wanted_in_binary(message)
    outputs = []
    pieces = []
    for tensor in answer.outputs:
        shown: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.shape,
        }
        if tensor.name in in_binary:
            pieces.append(tensor.binary())
            shown["parameters"] = {"binary_data_size": len(pieces[-1])}
        else:
            shown["data"] = tensor.values
        outputs.append(shown)
    shown = {
        "model_name": answer.model,
        "model_version": answer.version,
        "parameters": answer.parameters,
        "outputs": outputs,
    }
    if message.id:
        shown["id"] = message.id
    text = json.dumps(shown).encode()
    if not pieces:
        return Response(text, media_type="application/json")
    headers = {HEADER_LENGTH: str(len(text))}
    return Response(b"".join([text, *pieces]), 200, headers, "application/octet-stream")


def wanted_in_binary(message: Any) -> set[str]:
    """Names of outputs: each says so itself, or the request says it of all."""
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
