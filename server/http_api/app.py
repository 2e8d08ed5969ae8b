"""The HTTP API as one application: routes, and the middleware around them."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from starlette.convertors import StringConvertor, register_url_convertor
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from server.core.service import Service
from server.errors import GRPC_STATUS, HTTP_STATUS, Forbidden
from server.http_api.browsers import BrowserGuard
from server.http_api.descriptions import description_routes
from server.http_api.endpoints import Endpoints
from server.http_api.middleware import CallMiddleware, Routes
from server.http_api.probes import probe_routes
from server.http_api.problems import problem
from server.page.routes import page_routes
from server.settings import Settings


class ModelName(StringConvertor):
    """Up to the colon before a verb, so that GET …:classify is a wrong method and not a model."""

    regex = "[^/:]+"


register_url_convertor("model", ModelName())


def create_app(service: Service, settings: Settings, more_routes: Sequence[Route] = ()) -> ASGIApp:
    """The application that clients see; `more_routes` are those of another contract."""
    routes = [
        *Endpoints(service, settings).routes(),
        *probe_routes(service, with_reasons=service.keys is None),
        *description_routes(
            service.pool, needs_key=service.keys is not None, has_page=settings.page
        ),
        *(page_routes() if settings.page else ()),
        *more_routes,
    ]
    guard = BrowserGuard(settings, settings.http_address)
    return with_cors(CallMiddleware(Routes(routes), service, guard), settings)


class Cors(CORSMiddleware):
    """Refuses preflights in JSON, as all else is refused."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code == HTTPStatus.OK:
            return response
        error = Forbidden(
            f"{bytes(response.body).decode()}: the operator can add origins to --cors-origins"
        )
        status, code = HTTP_STATUS[error.reason], GRPC_STATUS[error.reason].name
        return problem(status, code, error.reason, error.message, {"vary": "Origin"})


def with_cors(application: ASGIApp, settings: Settings) -> ASGIApp:
    """Outermost: preflights have no key, and pages read errors as well."""
    if not settings.cors_origins:
        return application
    return Cors(
        application,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["x-request-id", "server-timing", "retry-after"],
    )
