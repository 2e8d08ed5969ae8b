"""The HTTP API as one application: routes, and the middleware around them."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from server.core.service import Service
from server.http_api.docs_page import docs_routes
from server.http_api.endpoints import Endpoints
from server.http_api.middleware import CallMiddleware
from server.http_api.probes import probe_routes
from server.http_api.problems import handle_http_exception
from server.settings import Settings


class ModelName(StringConvertor):
    """Up to the colon before a verb, so that GET …:classify is a wrong method and not a model."""

    regex = "[^/:]+"


register_url_convertor("model", ModelName())


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


def create_app(service: Service, settings: Settings, more_routes: Sequence[Route] = ()) -> ASGIApp:
    """The application that clients see; `more_routes` are those of another contract."""
    routes = [
        *Endpoints(service, settings).routes(),
        *probe_routes(service),
        *docs_routes(service.pool, needs_key=service.keys is not None),
        *more_routes,
    ]
    return CallMiddleware(Routes(routes), service)
