"""The application of the admin port: metrics, status and probes."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from server.admin.collectors import create_collect, metrics_route
from server.admin.statusz import statusz_route
from server.core.service import Service
from server.http_api.browsers import BrowserGuard, BrowserGuardMiddleware
from server.http_api.probes import probe_routes
from server.settings import Settings


def create_admin_app(
    service: Service, settings: Settings, more_routes: Sequence[Route] = ()
) -> Starlette:
    return Starlette(
        routes=[
            metrics_route(create_collect(service)),
            statusz_route(service, settings),
            *probe_routes(service, with_reasons=True),
            *more_routes,
        ],
        middleware=[
            Middleware(
                BrowserGuardMiddleware, guard=BrowserGuard(settings, settings.metrics_address)
            )
        ],
    )
