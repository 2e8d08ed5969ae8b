"""The application of the admin port: metrics, status and probes."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware

from server.admin.collectors import metrics_route
from server.admin.statusz import statusz_route
from server.core.service import Service
from server.http_api.browsers import BrowserGuard, BrowserGuardMiddleware
from server.http_api.probes import probe_routes
from server.settings import Settings


def create_admin_app(service: Service, settings: Settings) -> Starlette:
    pool, metrics, admission = service.pool, service.metrics, service.admission
    return Starlette(
        routes=[
            metrics_route(metrics, pool, admission, service.is_ready),
            statusz_route(service, settings),
            *probe_routes(service, with_reasons=True),
        ],
        middleware=[
            Middleware(
                BrowserGuardMiddleware, guard=BrowserGuard(settings, settings.metrics_address)
            )
        ],
    )
