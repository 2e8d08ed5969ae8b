"""What a client asks over HTTP: a body in one of three forms, query parameters, headers.

An image comes as the raw body (whatever content type the client puts), as the multipart part
`image`, or as base64 in JSON; the other fields of a request are query parameters of the same names,
and in JSON they may stand in the body, which then counts.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import sys
import time
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from google.protobuf import json_format
from google.protobuf.message import Message
from starlette.datastructures import Headers, QueryParams, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from convoy.v1 import classifier_pb2 as pb
from server.core.admission import ByteReservation
from server.core.classifier import MAX_REQUEST_ID_LENGTH, check_options, new_id
from server.errors import ImageTooLarge, MalformedRequest

# Parsing JSON above this size would hold the event loop for more than 2 ms.
LARGE_BODY_BYTES = 256 << 10
# A body of nothing but brackets would be gigabytes in memory; base64 has none of these characters.
MAX_JSON_VALUES = 10_000
# What stands in a request beside the image, and the model, which the path names.
OPTIONS = [
    field.name
    for field in pb.ClassifyRequest.DESCRIPTOR.fields
    if field.name not in ("model", "image")
]
BATCH_OPTIONS = [name for name in OPTIONS if name != "request_id"]
# The fields that protobuf would take a boolean for, by both of their names in JSON.
FRACTIONS = {
    name
    for field in pb.ClassifyRequest.DESCRIPTOR.fields
    if field.cpp_type in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT)
    for name in (field.name, field.json_name)
}
USABLE_REQUEST_ID = re.compile(rf"[!-~]{{1,{MAX_REQUEST_ID_LENGTH}}}")

M = TypeVar("M", bound=Message)
T = TypeVar("T")


# ---------------------------------------------------------------- one request, or several


async def read_request(
    request: Request, body: ByteReservation, max_request_bytes: int
) -> pb.ClassifyRequest:
    """
    Raises:
        MalformedRequest, ImageTooLarge: what the body or the query parameters are not.
        Overloaded: the gateway cannot hold the body.
        ClientDisconnect: the body did not come to its end.
    """
    check_encoding(request)
    options = parse_query(request.query_params, OPTIONS)
    pieces = bounded(request, body, max_request_bytes)
    if media_type(request) == "application/json":
        message = await parse_json(await joined(pieces), pb.ClassifyRequest)
    elif media_type(request) == "multipart/form-data":
        (content,) = await read_images(request.headers, pieces, most=1)
        message = asking_about(content)
    else:
        message = asking_about(await joined(pieces))
    complete(message, options, request.path_params["model"])
    return message


async def read_batch(
    request: Request, body: ByteReservation, max_request_bytes: int, max_batch_requests: int
) -> Sequence[pb.ClassifyRequest]:
    """
    Raises:
        MalformedRequest, ImageTooLarge, Overloaded, ClientDisconnect: as `read_request`.
    """
    check_encoding(request)
    options = parse_query(request.query_params, BATCH_OPTIONS)
    pieces = bounded(request, body, max_request_bytes)
    messages: Sequence[pb.ClassifyRequest]
    if media_type(request) == "application/json":
        messages = (await parse_json(await joined(pieces), pb.BatchClassifyRequest)).requests
    elif media_type(request) == "multipart/form-data":
        images = await read_images(request.headers, pieces, most=max_batch_requests)
        messages = [asking_about(content) for content in images]
    else:
        raise MalformedRequest(
            f"the content type is {media_type(request) or 'missing'}; a batch is application/json "
            "or multipart/form-data"
        )
    for message in messages:
        complete(message, options, request.path_params["model"])
    return messages


def asking_about(content: bytes) -> pb.ClassifyRequest:
    message = pb.ClassifyRequest()
    message.image.content = content  # copied once; through an Image of its own, twice
    return message


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def complete(message: pb.ClassifyRequest, options: pb.ClassifyRequest, model: str) -> None:
    """
    Raises:
        MalformedRequest: the body names another model than the path.
    """
    if message.model not in ("", model):
        raise MalformedRequest(
            f"the body names the model {message.model!r} and the path {model!r}: leave it out of "
            "the body",
            field="model",
        )
    message.model = model
    said = {field.name for field, _ in message.ListFields()}
    for field, value in options.ListFields():
        if field.name not in said:
            setattr(message, field.name, value)


# ---------------------------------------------------------------- bodies


def check_encoding(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise MalformedRequest(f"the content-encoding is {encoding!r}: send the body as it is")


async def bounded(
    request: Request, body: ByteReservation, max_request_bytes: int
) -> AsyncGenerator[bytes, None]:
    """The body as it comes; stops reading as soon as it is too long, or says that it will be."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_request_bytes:
        raise body_too_large(announced, max_request_bytes)
    async for piece in request.stream():
        if body.n_bytes + len(piece) > max_request_bytes:
            raise body_too_large(f"{body.n_bytes + len(piece)} or more", max_request_bytes)
        body.add(len(piece))
        yield piece


def body_too_large(size: str, max_request_bytes: int) -> ImageTooLarge:
    return ImageTooLarge(f"the body has {size} bytes, at most {max_request_bytes} are allowed")


async def joined(pieces: AsyncGenerator[bytes, None]) -> bytes:
    return b"".join([piece async for piece in pieces])


class InMemoryParser(MultiPartParser):
    """Starlette's parser, whose parts never go to disk: the body that holds them is bounded."""

    spool_max_size = sys.maxsize


async def read_images(
    headers: Headers, pieces: AsyncGenerator[bytes, None], most: int
) -> list[bytes]:
    """The parts of a multipart body, at least one, which all have to be files named image."""
    try:
        form = await InMemoryParser(headers, pieces, max_files=most, max_fields=0).parse()
    except MultiPartException as error:
        raise MalformedRequest(f"multipart body: {error.message}", field="image") from error
    parts = [part for name, part in form.multi_items() if name == "image"]
    if not parts or len(parts) < len(form.multi_items()):
        raise MalformedRequest(
            "the multipart body has no file named image, or another part; curl writes one with "
            "-F image=@photo.jpg",
            field="image",
        )
    return [await part.read() for part in parts if isinstance(part, UploadFile)]


async def parse_json(body: bytes, kind: type[M]) -> M:
    if len(body) > LARGE_BODY_BYTES:
        return await asyncio.to_thread(parse, body, kind)
    return parse(body, kind)


def parse(body: bytes, kind: type[M]) -> M:
    check_json_values(body)
    try:
        return json_format.ParseDict(json.loads(body.decode(), object_pairs_hook=members), kind())
    # Of hostile JSON, ParseDict lets out nearly anything: TypeError, RecursionError, SystemError.
    except Exception as error:
        name = kind.DESCRIPTOR.name
        raise MalformedRequest(f"the JSON body is not a {name}: {error}") from error


def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a JSON object, where protobuf's own parser would take true for the number 1.

    Raises:
        ValueError: a name is there twice, or what should be a number is a boolean.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice in one object")
    for name in FRACTIONS & found.keys():
        if isinstance(found[name], bool):
            raise ValueError(f"{name} is {json.dumps(found[name])}, must be a number")
    return found


def check_json_values(body: bytes) -> None:
    """
    Raises:
        MalformedRequest: parsing it would take far more memory than the body has bytes.
    """
    characters = np.frombuffer(body, np.uint8)
    n_values = sum(int(np.count_nonzero(characters == mark)) for mark in b",[{")
    if n_values > MAX_JSON_VALUES:
        raise MalformedRequest(f"the JSON has more than {MAX_JSON_VALUES} values")


# ---------------------------------------------------------------- query and request id


def parse_query(query: QueryParams, allowed: Iterable[str]) -> pb.ClassifyRequest:
    """
    Raises:
        MalformedRequest: a parameter is unknown, twice there, or not what it should be.
    """
    check_query(query, allowed)
    try:
        options = json_format.ParseDict(dict(query), pb.ClassifyRequest())
    except json_format.ParseError as error:
        raise MalformedRequest(f"query parameters: {error}") from error
    check_options(options)
    return options


def check_query(query: QueryParams, allowed: Iterable[str]) -> None:
    names = [name for name, _ in query.multi_items()]
    if unknown := sorted(set(names).difference(allowed)):
        raise MalformedRequest(
            f"the query parameter {unknown[0]!r} is none of: {', '.join(allowed) or '(none)'}"
        )
    if len(names) > len(set(names)):
        raise MalformedRequest("a query parameter is given twice")


def request_id_of(request: Request) -> str:
    """As the header says, if that can be told apart and written in a log; else a new one."""
    if not hasattr(request.state, "request_id"):
        given = request.headers.get("x-request-id", "")
        request.state.request_id = given if USABLE_REQUEST_ID.fullmatch(given) else new_id()
    request_id: str = request.state.request_id
    return request_id


# ---------------------------------------------------------------- how long the client waits


def timeout_of(headers: Headers) -> float | None:
    """Seconds that the client waits; None: it does not say.

    Raises:
        MalformedRequest: it says no time.
    """
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


def left_s(request: Request) -> float | None:
    """Seconds until the client's deadline, which counts from the arrival of the headers."""
    timeout_s = timeout_of(request.headers)
    if timeout_s is None:
        return None
    since_s = time.monotonic() - float(request.state.arrived_s)
    return max(0.0, timeout_s - since_s)


async def while_somebody_waits(request: Request, answering: Coroutine[Any, Any, T]) -> T:
    """
    Raises:
        ClientDisconnect: the client went away; its answer was given up.
    """
    answer = asyncio.create_task(answering)
    departure = asyncio.create_task(client_leaves(request))
    try:
        await asyncio.wait((answer, departure), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        answer.cancel()
        departure.cancel()
        await asyncio.gather(answer, departure, return_exceptions=True)


async def client_leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
