"""What a client sends over HTTP: a body in one of three forms, and query parameters.

An image is the raw body (with any content type), the multipart part `image`, or base64 in JSON. The
other fields of a request are query parameters of the same names. In JSON they may also be in the
body, which then takes precedence.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message
from starlette.datastructures import QueryParams, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from convoy.v1 import classifier_pb2 as pb
from server.core.bounds import Bounds, check_json, check_string
from server.core.call import Call
from server.core.validation import check_options
from server.errors import ClientLeft, MalformedRequest, cut, quote
from server.tasks import run_in_thread_if_large

# The fields of a request but the image, and the model, which the path names.
OPTIONS = [
    field.name
    for field in pb.ClassifyRequest.DESCRIPTOR.fields
    if field.name not in ("model", "image")
]
BATCH_OPTIONS = [name for name in OPTIONS if name != "request_id"]
# The fields for which protobuf would accept a boolean, by both of their names in JSON.
FRACTIONS = {
    name
    for field in pb.ClassifyRequest.DESCRIPTOR.fields
    if field.cpp_type in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT)
    for name in (field.name, field.json_name)
}
# Fields that are lists of names, for which protobuf would accept booleans and numbers.
LISTS = {field.name for field in pb.ClassifyRequest.DESCRIPTOR.fields if field.is_repeated}
M = TypeVar("M", bound=Message)


# ---------------------------------------------------------------- one request, or several


async def read_request(request: Request, call: Call) -> pb.ClassifyRequest:
    """
    Raises:
        MalformedRequest, ImageTooLarge: the body or a query parameter is invalid.
        Overloaded: the gateway cannot hold the body.
        DeadlineExceeded: the body did not arrive in time.
        ClientLeft: the body did not come to its end.
    """
    options = read_head(request, call, OPTIONS)
    async with call.within_deadline():
        if media_type(request) == "multipart/form-data":
            (content,) = await read_images(request, call, max_images=1)
            message = request_for(content)
        elif media_type(request) == "application/json":
            message = await read_json(request, call, pb.ClassifyRequest)
        else:
            message = request_for(await read_body(request, call))
    merge_options(message, options, call.model)
    return message


async def read_batch(
    request: Request, call: Call, max_batch_requests: int
) -> Sequence[pb.ClassifyRequest]:
    """
    Raises:
        MalformedRequest, ImageTooLarge, Overloaded, DeadlineExceeded, ClientLeft: as
            `read_request`.
    """
    options = read_head(request, call, BATCH_OPTIONS)
    check_options(options)  # here they are the batch's, and not one request's
    messages: Sequence[pb.ClassifyRequest]
    async with call.within_deadline():
        if media_type(request) == "application/json":
            batch = await read_json(request, call, pb.BatchClassifyRequest)
            messages = batch.requests
        elif media_type(request) == "multipart/form-data":
            images = await read_images(request, call, max_images=max_batch_requests)
            messages = [request_for(content) for content in images]
        else:
            raise MalformedRequest(
                f"the content type is {cut(media_type(request)) or 'missing'}; a batch is "
                "application/json or multipart/form-data"
            )
    for message in messages:
        merge_options(message, options, call.model)
    return messages


def read_head(request: Request, call: Call, allowed: Iterable[str]) -> pb.ClassifyRequest:
    """What path and query say of a request, before its body is read."""
    call.model = request.path_params["model"]
    check_string("model", call.model)
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise MalformedRequest(f"the content-encoding is {quote(encoding)}: send the body as it is")
    return parse_query(request.query_params, allowed)


def request_for(content: bytes) -> pb.ClassifyRequest:
    message = pb.ClassifyRequest()
    message.image.content = content  # copied once; through an Image of its own, twice
    return message


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def merge_options(message: pb.ClassifyRequest, options: pb.ClassifyRequest, model: str) -> None:
    """
    Raises:
        MalformedRequest: the body names another model than the path.
    """
    if message.model not in ("", model):
        raise MalformedRequest(
            f"the body names the model {quote(message.model)} and the path {quote(model)}: leave "
            "it out of the body",
            field="model",
        )
    message.model = model
    given = {field.name for field, _ in message.ListFields()}
    for field, value in options.ListFields():
        if field.name not in given and field.name in LISTS:
            getattr(message, field.name).extend(value)
        elif field.name not in given:
            setattr(message, field.name, value)


# ---------------------------------------------------------------- bodies


async def read_body(request: Request, call: Call) -> bytes:
    """
    Raises:
        ImageTooLarge, Overloaded: there is no room for it.
        ClientLeft: it did not come to its end.
    """
    check_announced(request, call)
    pieces, is_complete = [], False
    while not is_complete:
        piece, is_complete = await next_piece(request, call)
        pieces.append(piece)
    return b"".join(pieces)


async def body_pieces(request: Request, call: Call) -> AsyncGenerator[bytes, None]:
    """The body as it arrives; ends as soon as it is too long, or announces that it will be.

    Raises:
        ImageTooLarge, Overloaded, ClientLeft: as `read_body`, for which it would be too slow.
    """
    check_announced(request, call)
    is_complete = False
    while not is_complete:
        piece, is_complete = await next_piece(request, call)
        yield piece


def check_announced(request: Request, call: Call) -> None:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal():
        call.reservation.check_size(int(announced))


async def next_piece(request: Request, call: Call) -> tuple[bytes, bool]:
    """What has arrived since the last piece, held by the call; and whether that is all."""
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientLeft
    piece: bytes = message.get("body", b"")
    call.reservation.check_size(call.reservation.n_bytes + len(piece))
    call.reservation.add(len(piece))
    return piece, not message.get("more_body", False)


class InMemoryParser(MultiPartParser):
    """Starlette's parser, but parts never go to disk: the body that holds them is bounded."""

    spool_max_size = sys.maxsize


async def read_images(request: Request, call: Call, max_images: int) -> list[bytes]:
    """The parts of a multipart body: at least one, and all of them files named image."""
    pieces = body_pieces(request, call)
    try:
        form = await InMemoryParser(
            request.headers, pieces, max_files=max_images, max_fields=0
        ).parse()
    except MultiPartException as error:
        raise MalformedRequest(
            f"multipart body: {cut(error.message)} Send files named image, as curl does with "
            "-F image=@photo.jpg",
            field="image",
        ) from error
    except UnicodeError as error:  # charset=undefined, which Python has
        raise MalformedRequest("multipart body: its charset cannot decode its names") from error
    parts = [part for name, part in form.multi_items() if name == "image"]
    if not parts or len(parts) < len(form.multi_items()):
        raise MalformedRequest(
            "the multipart body has no file named image, or another part; curl writes one with "
            "-F image=@photo.jpg",
            field="image",
        )
    return [await part.read() for part in parts if isinstance(part, UploadFile)]


async def read_json(request: Request, call: Call, kind: type[M]) -> M:
    body = await read_body(request, call)
    return await run_in_thread_if_large(len(body), parse_json, body, kind, call.bounds)


def parse_json(body: bytes, kind: type[M], bounds: Bounds) -> M:
    check_json(body, "content", bounds)
    try:
        return json_format.ParseDict(json.loads(body.decode(), object_pairs_hook=to_object), kind())
    # For hostile JSON, ParseDict raises nearly anything: TypeError, RecursionError, SystemError.
    except Exception as error:
        name = kind.DESCRIPTOR.name
        raise MalformedRequest(f"the JSON body is not a valid {name}: {cut(str(error))}") from error


def to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; protobuf's own parser would accept true as the number 1.

    Raises:
        ValueError: a name occurs twice, an image is a data: URI, a number is a boolean, or a list
            has not only names.
    """
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name occurs twice in one object")
    if str(members.get("content", "")).startswith("data:"):
        raise ValueError("content is a data: URI, must be the base64 that follows its comma")
    for name in FRACTIONS & members.keys():
        if isinstance(members[name], bool):
            raise ValueError(f"{name} is {json.dumps(members[name])}, must be a number")
    for name in LISTS & members.keys():
        if not all(isinstance(value, str) for value in members[name] or ()):
            raise ValueError(f"{name} is {json.dumps(members[name])}, must be a list of names")
    return members


# ---------------------------------------------------------------- query


def parse_query(query: QueryParams, allowed: Iterable[str]) -> pb.ClassifyRequest:
    """
    Raises:
        MalformedRequest: a parameter is unknown, given twice, or of the wrong type.
    """
    if not query:
        return pb.ClassifyRequest()
    check_query(query, allowed)
    # A list is one parameter, its values joined by commas.
    values = {
        name: [part for part in text.split(",") if part] if name in LISTS else text
        for name, text in query.items()
    }
    try:
        return json_format.ParseDict(values, pb.ClassifyRequest())
    except json_format.ParseError as error:
        raise MalformedRequest(f"query parameters: {cut(str(error))}") from error


def check_query(query: QueryParams, allowed: Iterable[str]) -> None:
    """
    Raises:
        MalformedRequest: a parameter is unknown, or given twice.
    """
    names = [name for name, _ in query.multi_items()]
    if unknown := sorted(set(names).difference(allowed)):
        raise MalformedRequest(
            f"unknown query parameter {quote(unknown[0])}; "
            f"allowed: {', '.join(allowed) or '(none)'}"
        )
    if len(names) > len(set(names)):
        raise MalformedRequest("a query parameter is given twice")
    for name, value in query.multi_items():
        check_string(name, value)
