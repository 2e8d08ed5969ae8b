"""The application of the admin port: metrics, status and probes."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette

from server.admin.collectors import metrics_route
from server.admin.statusz import statusz_route
from server.core.admission import Admission
from server.http_api.app import probes
from server.observability.metrics import Metrics
from server.settings import Settings
from server.versions.pool import Pool


def create_admin_app(
    pool: Pool,
    metrics: Metrics,
    admission: Admission,
    settings: Settings,
    is_ready: Callable[[], bool],
) -> Starlette:
    return Starlette(
        routes=[
            metrics_route(metrics, pool, admission, is_ready),
            statusz_route(pool, metrics, admission, settings, is_ready),
            *probes(pool, is_ready),
        ]
    )
