"""The application of the admin port: metrics, status and probes."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.middleware import Middleware

from server.admin.collectors import create_collect
from server.admin.metrics import metrics_route
from server.admin.statusz import statusz_route
from server.admin.worker import worker_routes
from server.core.service import Service
from server.core.status import Status
from server.http_api.browsers import BrowserGuard, BrowserGuardMiddleware
from server.http_api.probes import probe_routes
from server.observability.metrics import Facts
from server.settings import Settings


def create_admin_app(
    service: Service, settings: Settings, own_statistics: Callable[[], object] | None = None
) -> Starlette:
    """`own_statistics` are for the supervisor, if there is one."""
    status, collect = Status(service), create_collect(service)

    async def facts() -> Facts:
        return await status.facts() | {
            "settings": settings.model_dump(mode="json", exclude_none=True)
        }

    routes = [
        metrics_route(collect),
        statusz_route(facts),
        *probe_routes(service, with_reasons=True),
        *(worker_routes(collect, own_statistics) if own_statistics else ()),
    ]
    guard = BrowserGuard(settings, settings.metrics_address)
    return Starlette(routes=routes, middleware=[Middleware(BrowserGuardMiddleware, guard=guard)])
