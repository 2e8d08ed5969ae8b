"""The HTTP door: translates requests, answers and errors, and nothing else.

JSON is the messages of the contract in snake_case; errors are RFC 9457 problem documents. An image
comes as the raw body (whatever content type the client puts), as the multipart part `image`, or as
base64 in JSON; with the first two, the other fields are query parameters of the same names.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from convoy.v1 import classifier_pb2 as pb
from server import tracing
from server.admission import Admission
from server.classifier import Classifier
from server.errors import GRPC_STATUS, HTTP_STATUS, ImageTooLarge, MalformedRequest, ServingError
from server.metrics import Metrics, metrics_route
from server.registry import Registry
from server.settings import Settings
from server.statusz import statusz_route

# Parsing JSON above this size would hold the event loop for more than 2 ms.
LARGE_BODY_BYTES = 256 << 10
CLIENT_CLOSED_REQUEST = 499


class ModelName(StringConvertor):
    """Up to the colon before a verb, so that GET …:classify is a wrong method and no model."""

    regex = "[^/:]+"


register_url_convertor("model", ModelName())


def http_door(
    classifier: Classifier,
    registry: Registry,
    is_ready: Callable[[], bool],
    max_request_bytes: int,
    more_routes: Sequence[Route] = (),
) -> Starlette:
    """The application that clients see."""

    async def classify(request: Request) -> Response:
        tracing.arrived("http", request.headers)
        message = await read_request(request, max_request_bytes)
        message.model = request.path_params["model"]
        message.request_id = message.request_id or request.headers.get("x-request-id", "")
        answer = await classifier.classify(message, timeout_of(request.headers))
        return JSONResponse(to_json(answer), headers={"x-request-id": answer.request_id})

    async def list_models(request: Request) -> Response:
        models = registry.list()
        return JSONResponse(await asyncio.to_thread(to_json, pb.ListModelsResponse(models=models)))

    async def get_model(request: Request) -> Response:
        model = registry.describe(
            request.path_params["model"], request.query_params.get("version", "")
        )
        return JSONResponse(await asyncio.to_thread(to_json, model))

    return Starlette(
        routes=[
            Route("/v1/models", list_models),
            Route("/v1/models/{model:model}:classify", classify, methods=["POST"]),
            Route("/v1/models/{model:model}", get_model),
            *more_routes,
            *probes(registry, is_ready),
        ],
        exception_handlers={
            ServingError: answer_serving_error,
            HTTPException: answer_http_exception,
            ClientDisconnect: answer_nobody,
        },
    )


def operator_door(
    registry: Registry,
    metrics: Metrics,
    admission: Admission,
    settings: Settings,
    is_ready: Callable[[], bool],
) -> Starlette:
    """The application that only the operator sees, on a port of its own."""
    return Starlette(
        routes=[
            metrics_route(metrics),
            statusz_route(registry, metrics, admission, settings, is_ready),
            *probes(registry, is_ready),
        ]
    )


def probes(registry: Registry, is_ready: Callable[[], bool]) -> list[Route]:
    async def live(request: Request) -> Response:
        return PlainTextResponse("live\n")

    async def ready(request: Request) -> Response:
        if is_ready():
            return PlainTextResponse("ready\n")
        return PlainTextResponse(f"not ready: {registry.why_not_ready()}\n", status_code=503)

    return [Route("/livez", live), Route("/readyz", ready)]


# ---------------------------------------------------------------- requests


async def read_request(request: Request, max_request_bytes: int) -> pb.ClassifyRequest:
    """
    Raises:
        MalformedRequest, ImageTooLarge: what the body or the query parameters are not.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "application/json":
        return await parse_json(await read_body(request, max_request_bytes))
    message = parse_query(request.query_params)
    if content_type == "multipart/form-data":
        message.image.content = await read_multipart(request, max_request_bytes)
    else:
        message.image.content = await read_body(request, max_request_bytes)
    return message


async def bounded(request: Request, max_request_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body as it comes; stops reading as soon as it is too long, or says that it will be."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_request_bytes:
        raise body_too_large(announced, max_request_bytes)
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_request_bytes:
            raise body_too_large(f"{received} or more", max_request_bytes)
        yield chunk


def body_too_large(size: str, max_request_bytes: int) -> ImageTooLarge:
    return ImageTooLarge(f"the body has {size} bytes, at most {max_request_bytes} are allowed")


async def read_body(request: Request, max_request_bytes: int) -> bytes:
    return b"".join([chunk async for chunk in bounded(request, max_request_bytes)])


class InMemoryParser(MultiPartParser):
    """Starlette's parser, whose parts never go to disk: the body that holds them is bounded."""

    spool_max_size = sys.maxsize


async def read_multipart(request: Request, max_request_bytes: int) -> bytes:
    stream = bounded(request, max_request_bytes)
    try:
        form = await InMemoryParser(request.headers, stream, max_files=1, max_fields=0).parse()
    except MultiPartException as error:
        raise MalformedRequest(f"multipart body: {error.message}", field="image") from error
    part = form.get("image")
    if not isinstance(part, UploadFile):
        raise MalformedRequest(
            "the multipart body has no file named image; curl writes one with -F image=@photo.jpg",
            field="image",
        )
    return await part.read()


async def parse_json(body: bytes) -> pb.ClassifyRequest:
    if len(body) > LARGE_BODY_BYTES:
        return await asyncio.to_thread(parse, body)
    return parse(body)


def parse(body: bytes) -> pb.ClassifyRequest:
    try:
        return json_format.Parse(body, pb.ClassifyRequest())
    except (json_format.ParseError, ValueError, RecursionError) as error:
        raise MalformedRequest(f"the JSON body is not a ClassifyRequest: {error}") from error


def parse_query(query: Mapping[str, str]) -> pb.ClassifyRequest:
    try:
        return json_format.ParseDict(dict(query), pb.ClassifyRequest())
    except json_format.ParseError as error:
        raise MalformedRequest(f"query parameters: {error}") from error


def timeout_of(headers: Mapping[str, str]) -> float | None:
    """Seconds that the client waits; None: it does not say."""
    text = headers.get("x-request-timeout-ms")
    if text is None:
        return None
    try:
        timeout_s = float(text) / 1e3
    except ValueError:
        timeout_s = math.nan
    if not 0 < timeout_s < math.inf:
        raise MalformedRequest(f"X-Request-Timeout-Ms is {text!r}, must be a number above 0")
    return timeout_s


# ---------------------------------------------------------------- answers


def to_json(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


async def answer_serving_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServingError)
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    code = GRPC_STATUS[error.reason].name
    return problem(HTTP_STATUS[error.reason], code, error.reason, error.message, headers)


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own: no such route (404), or not that method (405)."""
    assert isinstance(error, HTTPException)
    detail = f"{request.method} {request.url.path}: {error.detail}"
    return problem(error.status_code, "UNIMPLEMENTED", "", detail, dict(error.headers or {}))


async def answer_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


def problem(
    status: int, code: str, reason: str, detail: str, headers: Mapping[str, str]
) -> Response:
    """RFC 9457; `error` repeats the detail for clients of other servers."""
    body = {
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
        "reason": reason,
        "error": detail,
    }
    return JSONResponse(body, status, headers, media_type="application/problem+json")
