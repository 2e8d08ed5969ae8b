"""Around every HTTP request: its `Call`, its accounting, and what every answer carries."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from convoy.v1 import classifier_pb2 as pb
from server.core.call import Call
from server.core.service import Service
from server.core.validation import MAX_REQUEST_ID_LENGTH
from server.errors import ClientLeft, MalformedRequest, ServingError, Unimplemented, quote
from server.http_api.browsers import BrowserGuard
from server.http_api.problems import handle_http_exception, to_response
from server.observability import tracing

# What needs no key: the probes, what describes the contract, and the files of the page.
OPEN_PATHS = re.compile(
    r"/livez|/readyz|/v2/health/(live|ready)|/openapi\.json|/docs|/(page/[\w./-]+)?"
)
DESCRIPTIONS = re.compile(r"/openapi\.json|/docs")
USABLE_REQUEST_ID = re.compile(rf"[!-~]{{1,{MAX_REQUEST_ID_LENGTH}}}")

T = TypeVar("T")


def current_call(request: Request) -> Call:
    call: Call = request.scope["call"]
    return call


class CallMiddleware:
    """Begins a call from the headers, and answers it if the application fails.

    A stranger's body is not read: keys are checked first.
    """

    def __init__(self, application: ASGIApp, service: Service, guard: BrowserGuard) -> None:
        self._application = application
        self._service = service
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        # As it was sent: decoded, it could break a line of the log.
        call = self._service.begin("http", scope["raw_path"].decode("latin-1"))
        scope["call"] = call
        if USABLE_REQUEST_ID.fullmatch(request_id := headers.get("x-request-id", "")):
            call.request_id = request_id
        call.trace_id = tracing.begin(headers)
        answer = ResponseSender(call, send)
        try:
            with self._service.receive(call):
                self._guard.check(scope["method"], headers)
                if not OPEN_PATHS.fullmatch(scope["path"]):
                    self._service.authenticate(call, authorization(headers))
                elif DESCRIPTIONS.fullmatch(scope["path"]):
                    self._service.charge_stranger((scope["client"] or ("",))[0])
                call.set_timeout(parse_timeout(headers))
                await self._application(scope, receive, answer.send)
        except (ServingError, Unimplemented, ClientLeft) as error:
            if answer.has_begun:
                raise
            await to_response(call, error)(scope, receive, answer.send)


class Routes:
    """Starlette's router alone: what Starlette puts around it, `CallMiddleware` does."""

    def __init__(self, routes: Sequence[Route]) -> None:
        # A redirection would repeat the host that the client claims to have asked.
        self._router = Router(routes, redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self  # without an application the router would answer by itself
        try:
            await self._router(scope, receive, send)
        except HTTPException as error:
            response = handle_http_exception(Request(scope), error)
            await response(scope, receive, send)


class ResponseSender:
    """Sends an answer with the id of its request, and with how long it took."""

    def __init__(self, call: Call, send: Send) -> None:
        self._call = call
        self._send = send
        self.has_begun = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            message["headers"] += (
                (b"x-request-id", to_header(self._call.request_id).encode()),
                (b"server-timing", server_timing(self._call).encode()),
            )
        await self._send(message)


def to_header(request_id: str) -> str:
    """An id from a body may have characters that no header can carry, or that would end it."""
    return re.sub(r"[^!-~]", "?", request_id)


def server_timing(call: Call) -> str:
    """Milliseconds of each stage that was measured, and in all."""
    durations_ms = {}
    if len(call.images) == 1:
        result = call.images[0].result
        if isinstance(result, pb.ClassifyResponse):
            durations_ms = stage_durations_ms(result.timing)
    durations_ms["total"] = (time.monotonic() - call.arrived_s) * 1e3
    return ", ".join(f"{name};dur={ms:.3f}" for name, ms in durations_ms.items())


def stage_durations_ms(timing: pb.Timing) -> dict[str, float]:
    """Without the total, which is that of the whole answer here."""
    durations_us = {
        "decode": timing.decode_us,
        "preprocess": timing.preprocess_us,
        "infer": timing.infer_us,
        "queue": timing.queue_us,
        "compute": timing.compute_us,
    }
    return {name: duration_us / 1e3 for name, duration_us in durations_us.items() if duration_us}


def authorization(headers: Headers) -> str | None:
    """The value of the header, if there is exactly one."""
    values = headers.getlist("authorization")
    return values[0] if len(values) == 1 else None


def parse_timeout(headers: Headers) -> float | None:
    """Seconds that the client waits; None if it does not say.

    Raises:
        MalformedRequest: the header is not a positive number.
    """
    text = headers.get("x-request-timeout-ms")
    if text is None:
        return None
    try:
        timeout_s = float(text) / 1e3
    except ValueError:
        timeout_s = math.nan
    if not 0 < timeout_s < math.inf:
        raise MalformedRequest(f"X-Request-Timeout-Ms is {quote(text)}, must be a number above 0")
    return timeout_s


async def cancel_on_disconnect(request: Request, answering: Coroutine[Any, Any, T]) -> T:
    """Cancels its own task: waiting for both ends in tasks would double the cost of a request.

    Raises:
        ClientLeft: the client disconnected; its answer was given up.
    """
    departure: asyncio.Future[None] = request.state.departure()
    task = asyncio.current_task()
    assert task
    is_answering = True

    def cancel(_: object) -> None:
        if is_answering:
            task.cancel()

    departure.add_done_callback(cancel)
    try:
        return await answering
    except asyncio.CancelledError:
        if departure.done() and not task.uncancel():
            raise ClientLeft from None
        raise
    finally:
        is_answering = False
        departure.remove_done_callback(cancel)
