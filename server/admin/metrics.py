"""/metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from prometheus_client.core import Metric
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.observability import exposition

Collect = Callable[[], Awaitable[list[Metric]]]


def metrics_route(collect: Collect) -> Route:
    async def show_metrics(request: Request) -> Response:
        accept = request.headers.get("accept", "")
        # With 28 models these are 3,000 lines, which would hold up the event loop.
        text, kind = await asyncio.to_thread(exposition.to_text, await collect(), accept)
        return Response(text, headers={"content-type": kind})

    return Route("/metrics", show_metrics)
