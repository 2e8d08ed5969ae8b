"""Errors as HTTP answers: RFC 9457 problem documents, and which status each error has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from server.errors import (
    GRPC_STATUS,
    HTTP_STATUS,
    AuthRequired,
    ClientLeft,
    ServingError,
    Unimplemented,
    cut,
)
from server.http_api.json_response import JsonResponse

if TYPE_CHECKING:
    from server.core.call import Call

CLIENT_CLOSED_REQUEST = 499
# What the server answers to what it does not read as a request: the contract's code and reason.
UNREAD = {
    HTTPStatus.BAD_REQUEST: ("INVALID_ARGUMENT", "MALFORMED_REQUEST"),
    HTTPStatus.REQUEST_TIMEOUT: ("DEADLINE_EXCEEDED", ""),
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: ("INVALID_ARGUMENT", ""),
    HTTPStatus.NOT_IMPLEMENTED: ("UNIMPLEMENTED", ""),
    HTTPStatus.SERVICE_UNAVAILABLE: ("UNAVAILABLE", ""),
}
# All statuses that no ServingError stands for.
CODES = {
    **UNREAD,
    HTTPStatus.NOT_FOUND: ("UNIMPLEMENTED", ""),
    HTTPStatus.METHOD_NOT_ALLOWED: ("UNIMPLEMENTED", ""),
}


class NoRoute(Unimplemented):
    """No route has this path (404), or it has another method (405)."""

    def __init__(self, request: Request, error: HTTPException) -> None:
        super().__init__(f"{cut(request.method)} {cut(request.url.path)}: {error.detail}")
        self.status = error.status_code
        self.headers = error.headers or {}


def handle_http_exception(request: Request, error: HTTPException) -> Response:
    """
    Raises:
        NoRoute: what Starlette's router raises, for all but a question for the methods.
    """
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and request.method == "OPTIONS":
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=error.headers)
    raise NoRoute(request, error) from error


def to_response(call: Call, error: ServingError | Unimplemented | ClientLeft) -> Response:
    """The answer to a call that failed."""
    if isinstance(error, ClientLeft):
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    if isinstance(error, ServingError):
        code, status = GRPC_STATUS[error.reason].name, HTTP_STATUS[error.reason]
        return problem(
            status, code, error.reason, error.message, error_headers(error), call.request_id
        )
    assert isinstance(error, NoRoute)
    code, reason = CODES[HTTPStatus(error.status)]
    return problem(error.status, code, reason, error.message, error.headers, call.request_id)


def error_headers(error: ServingError) -> dict[str, str]:
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    if isinstance(error, AuthRequired):
        headers["www-authenticate"] = "Bearer"
    return headers


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
    return JsonResponse(body, status, headers, media_type="application/problem+json")
