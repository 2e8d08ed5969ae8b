"""The Open Inference Protocol over HTTP: /v2, in JSON or with Triton's binary tensors."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.core.bounds import check_string
from server.core.call import Call
from server.core.service import Service
from server.errors import MalformedRequest, quote
from server.http_api.middleware import cancel_on_disconnect, current_call
from server.http_api.requests import read_body
from server.open_inference import metadata
from server.open_inference.inference import (
    VALUE_BYTES,
    find_servable,
    require_responses,
    to_answer,
    to_requests,
)
from server.open_inference.model_statistics import Statistics
from server.open_inference.rest_codec import (
    HEADER_LENGTH,
    IndexRequest,
    parse_infer_request,
    to_response,
    validate,
)
from server.settings import Settings
from server.tasks import run_in_thread_if_large

INFLATED_AT_ONCE_BYTES = 1 << 20

Endpoint = Callable[[Request], Awaitable[Response]]


class RestApi:
    """Its endpoints, for the application that clients see."""

    def __init__(self, service: Service, settings: Settings, statistics: Statistics) -> None:
        self._service = service
        self._settings = settings
        self._statistics = statistics

    def routes(self) -> list[Route]:
        return [
            Route("/v2", self.server_metadata),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/v2/models/stats", self.model_statistics),
            Route("/v2/repository/index", self.repository_index, methods=["POST"]),
            *model_routes("/infer", self.infer, "POST"),
            *model_routes("/ready", self.model_ready),
            *model_routes("/config", self.model_config),
            *model_routes("/stats", self.model_statistics),
            *model_routes("", self.model_metadata),
            *refused_routes(),
        ]

    # ------------------------------------------------------------ inference

    async def infer(self, request: Request) -> Response:
        call = current_call(request)
        call.model = path_model(request)[0]
        message = await read_message(request, call)
        servable = find_servable(self._service.pool, message)
        with self._statistics.counting(servable) as counting:
            size = self._settings.max_batch_requests
            requests = await to_requests(call, message, servable, size)
            answering = self._service.classify_batch(call, requests)
            images = await cancel_on_disconnect(request, answering)
            counting.responses = require_responses(images)
        answer = await to_answer(counting.responses, message)
        n_values = sum(len(tensor.values) for tensor in answer.outputs)
        return await run_in_thread_if_large(n_values * VALUE_BYTES, to_response, message, answer)

    # ------------------------------------------------------------ health and metadata

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        is_ready = self._service.is_ready()
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    async def model_ready(self, request: Request) -> Response:
        servable = self._service.pool.resolve(*path_model(request))
        return JSONResponse({"name": servable.model, "ready": True})

    async def server_metadata(self, request: Request) -> Response:
        return JSONResponse(metadata.server_metadata())

    async def model_metadata(self, request: Request) -> Response:
        return JSONResponse(metadata.model_metadata(self._service.pool, *path_model(request)))

    async def model_config(self, request: Request) -> Response:
        size = self._settings.max_batch_requests
        return JSONResponse(metadata.model_config(self._service.pool, *path_model(request), size))

    async def model_statistics(self, request: Request) -> Response:
        name, version = path_model(request)
        return JSONResponse(
            await metadata.model_statistics(self._service.pool, self._statistics, name, version)
        )

    async def repository_index(self, request: Request) -> Response:
        call = current_call(request)
        content = await read_inflated(request, call)
        index = await run_in_thread_if_large(
            len(content), validate, IndexRequest, content or b"{}", call.bounds
        )
        models = metadata.repository_index(self._service.pool, only_ready=index.ready)
        return JSONResponse(models)


def model_routes(path: str, endpoint: Endpoint, method: str = "GET") -> Iterator[Route]:
    for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        yield Route(f"{prefix}{path}", endpoint, methods=[method])


def path_model(request: Request) -> tuple[str, str]:
    """Name and version; empty where the path has none.

    Raises:
        MalformedRequest: one of them is too long.
    """
    model, version = (request.path_params.get(name, "") for name in ("model", "version"))
    check_string("model", model)
    check_string("version", version)
    return model, version


def refused_routes() -> Iterator[Route]:
    """What Triton lets clients do and we do not: no such routes, and the reason."""
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


async def read_message(request: Request, call: Call) -> Any:
    """The request as a ModelInferRequest, whatever form its body has.

    Raises:
        MalformedRequest, ImageTooLarge, Overloaded: it cannot be read, or there is no room for it.
        DeadlineExceeded, ClientLeft: it did not come to its end.
    """
    async with call.within_deadline():
        content = await read_inflated(request, call)
        length = request.headers.get(HEADER_LENGTH)
        message = await run_in_thread_if_large(
            len(content), parse_infer_request, content, length, call.bounds
        )
    message.id = message.id or request.headers.get("x-request-id", "")
    message.model_name, message.model_version = path_model(request)
    return message


async def read_inflated(request: Request, call: Call) -> bytes:
    """The body, inflated if it comes compressed, and reserved.

    Raises:
        MalformedRequest, ImageTooLarge, Overloaded: it cannot be read, or there is no room for it.
    """
    content = await read_body(request, call)
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding == "identity":
        return content
    if encoding not in ("gzip", "deflate"):
        raise MalformedRequest(
            f"the content-encoding is {quote(encoding)}, must be gzip or deflate"
        )
    return await inflate(content, call)


async def inflate(content: bytes, call: Call) -> bytes:
    """Piece by piece, so that a small body does not become a large one unnoticed."""
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
        call.reservation.check_size(n_bytes)
        call.reservation.add(len(piece))
        pieces.append(piece)
        content = inflating.unconsumed_tail
    return b"".join(pieces)
