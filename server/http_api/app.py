"""The HTTP door: translates requests, answers and errors, and nothing else.

JSON is the messages of the contract in snake_case; errors are RFC 9457 problem documents. What a
request may look like is in `http_requests`; `openapi` describes it all to clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from google.protobuf import json_format
from google.protobuf.message import Message
from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as AsgiMessage

from convoy.v1 import classifier_pb2 as pb
from server.core.admission import Admission, ByteReservation
from server.core.classifier import Classifier
from server.core.keys import KeyMiddleware, Keys
from server.core.rpc_status import result_of
from server.errors import (
    GRPC_STATUS,
    HTTP_STATUS,
    DeadlineExceeded,
    InternalError,
    ServingError,
)
from server.http_api.docs_page import docs_routes
from server.http_api.requests import (
    check_query,
    left_s,
    read_batch,
    read_request,
    request_id_of,
    while_somebody_waits,
)
from server.observability import tracing
from server.settings import Settings
from server.versions.pool import Pool

CLIENT_CLOSED_REQUEST = 499
# Writing more as JSON would hold the event loop for more than 2 ms.
LARGE_ANSWER_BYTES = 2 << 10
# What clients of the contract read where no ServingError has been raised.
CODES = {400: "INVALID_ARGUMENT", 404: "UNIMPLEMENTED", 405: "UNIMPLEMENTED"}


class ModelName(StringConvertor):
    """Up to the colon before a verb, so that GET …:classify is a wrong method and no model."""

    regex = "[^/:]+"


register_url_convertor("model", ModelName())


def http_door(
    classifier: Classifier,
    pool: Pool,
    admission: Admission,
    is_ready: Callable[[], bool],
    settings: Settings,
    *,
    keys: Keys | None = None,
    more_routes: Sequence[Route] = (),
) -> ASGIApp:
    """The application that clients see; `more_routes` are those of another contract."""
    endpoints = Endpoints(classifier, pool, admission, settings)
    door = Starlette(
        routes=[
            Route("/v1/models", endpoints.list_models),
            Route("/v1/models/{model:model}:classify", endpoints.classify, methods=["POST"]),
            Route(
                "/v1/models/{model:model}:batchClassify", endpoints.batch_classify, methods=["POST"]
            ),
            Route("/v1/models/{model:model}", endpoints.get_model),
            *probes(pool, is_ready),
            *docs_routes(pool, needs_key=keys is not None),
            *more_routes,
        ],
        exception_handlers={
            ServingError: answer_serving_error,
            HTTPException: answer_http_exception,
            ClientDisconnect: answer_nobody,
            Exception: answer_fault,
        },
    )
    # A redirection would repeat the host that the client claims to have asked.
    door.router.redirect_slashes = False
    guarded = KeyMiddleware(door, keys, answer_serving_error) if keys else door
    return Accompanied(guarded)


def probes(pool: Pool, is_ready: Callable[[], bool]) -> list[Route]:
    async def live(request: Request) -> Response:
        return PlainTextResponse("live\n")

    async def ready(request: Request) -> Response:
        if is_ready():
            return PlainTextResponse("ready\n")
        return PlainTextResponse(f"not ready: {pool.why_not_ready()}\n", status_code=503)

    return [Route("/livez", live), Route("/readyz", ready)]


# ---------------------------------------------------------------- the contract


class Endpoints:
    """The methods of the contract."""

    def __init__(
        self,
        classifier: Classifier,
        pool: Pool,
        admission: Admission,
        settings: Settings,
    ) -> None:
        self._classifier = classifier
        self._pool = pool
        self._admission = admission
        self._settings = settings

    async def classify(self, request: Request) -> Response:
        with self._admission.body() as body:
            async with arriving(request, self._classifier):
                message = await read_request(request, body, self._settings.max_request_bytes)
            message.request_id = message.request_id or request_id_of(request)
            try:
                answering = self._classifier.classify(message, left_s(request))
                answer = await while_somebody_waits(request, answering)
            finally:  # also where the classifier has put another in the place of a bad one
                request.state.request_id = message.request_id
        request.state.stages = stages_of(answer.timing)
        return await answer_with(answer)

    async def batch_classify(self, request: Request) -> Response:
        with self._admission.body() as body:
            async with arriving(request, self._classifier):
                messages = await self._read_batch(request, body)
            answering = self._classifier.classify_batch(messages, left_s(request))
            items = await while_somebody_waits(request, answering)
        return await answer_with(
            pb.BatchClassifyResponse(results=[result_of(item) for item in items])
        )

    async def list_models(self, request: Request) -> Response:
        check_query(request.query_params, [])
        return await answer_with(pb.ListModelsResponse(models=self._pool.list()))

    async def get_model(self, request: Request) -> Response:
        check_query(request.query_params, ["version"])
        model = self._pool.describe(
            request.path_params["model"], request.query_params.get("version", "")
        )
        return await answer_with(model)

    async def _read_batch(
        self, request: Request, body: ByteReservation
    ) -> Sequence[pb.ClassifyRequest]:
        settings = self._settings
        return await read_batch(
            request, body, settings.max_request_bytes, settings.max_batch_requests
        )


@contextlib.asynccontextmanager
async def arriving(request: Request, classifier: Classifier) -> AsyncIterator[None]:
    """What fails before the classifier has the request is counted and logged like the rest."""
    try:
        with classifier.arriving(request.path_params["model"], request_id_of(request)):
            async with in_time(request):
                yield
    except asyncio.CancelledError as cancelled:
        if isinstance(cancelled.__cause__, ClientDisconnect):
            raise cancelled.__cause__ from None
        raise


@contextlib.asynccontextmanager
async def in_time(request: Request) -> AsyncIterator[None]:
    """Raises what the classifier knows: DeadlineExceeded; CancelledError if the client left."""
    try:
        async with asyncio.timeout(left_s(request)):
            yield
    except TimeoutError as late:
        message = "the deadline passed before the whole request was here"
        raise DeadlineExceeded(message) from late
    except ClientDisconnect as gone:
        raise asyncio.CancelledError from gone


# ---------------------------------------------------------------- answers


class Accompanied:
    """Every answer, errors included, says which request it is to and how long it took."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        request.state.arrived_s = time.monotonic()
        request.state.stages = {}
        tracing.arrived("http", request.headers)

        async def send_accompanied(message: AsgiMessage) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = in_a_header(request_id_of(request))
                headers["server-timing"] = server_timing(request)
            await send(message)

        await self._application(scope, receive, send_accompanied)


def in_a_header(request_id: str) -> str:
    """A request may have an id that no header can carry, or that would end it."""
    return re.sub(r"[^!-~]", "?", request_id)


def server_timing(request: Request) -> str:
    total_ms = (time.monotonic() - request.state.arrived_s) * 1e3
    durations_ms = {**request.state.stages, "total": total_ms}
    return ", ".join(f"{name};dur={ms:.3f}" for name, ms in durations_ms.items())


def stages_of(timing: pb.Timing) -> dict[str, float]:
    """Milliseconds of each stage that was measured; the total is the door's own."""
    return {
        field.name.removesuffix("_us"): microseconds / 1e3
        for field, microseconds in timing.ListFields()
        if field.name != "total_us"
    }


async def answer_with(message: Message) -> Response:
    if message.ByteSize() > LARGE_ANSWER_BYTES:
        return await asyncio.to_thread(as_json, message)
    return as_json(message)


def as_json(message: Message) -> Response:
    return JSONResponse(
        json_format.MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
    )


async def answer_serving_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServingError)
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    code = GRPC_STATUS[error.reason].name
    status, request_id = HTTP_STATUS[error.reason], request_id_of(request)
    return problem(status, code, error.reason, error.message, headers, request_id)


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own: no such route (404), or not that method (405)."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405 and request.method == "OPTIONS":
        return Response(status_code=204, headers=headers)
    detail = f"{request.method} {request.url.path}: {error.detail}"
    code = CODES.get(error.status_code, "UNKNOWN")
    return problem(error.status_code, code, "", detail, headers, request_id_of(request))


async def answer_fault(request: Request, error: Exception) -> Response:
    """Starlette raises it again when this is sent, and uvicorn writes it in the log."""
    return await answer_serving_error(
        request, InternalError("the gateway failed; its log has the reason")
    )


async def answer_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


def problem(
    status: int,
    code: str,
    reason: str,
    detail: str,
    headers: Mapping[str, str],
    request_id: str = "",
) -> Response:
    """RFC 9457; `error` repeats the detail for clients of other servers."""
    body = {
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
        "reason": reason,
        "request_id": request_id,
        "error": detail,
    }
    return JSONResponse(body, status, headers, media_type="application/problem+json")
