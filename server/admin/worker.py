"""What a supervisor asks its workers, each on a socket that nobody else can reach."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.admin.collectors import create_collect
from server.core.service import Service
from server.observability import samples

SAMPLES, STATISTICS = "/samples", "/statistics"


def worker_routes(service: Service, own_statistics: Callable[[], object]) -> list[Route]:
    collect = create_collect(service)

    async def show_samples(request: Request) -> Response:
        return Response(await asyncio.to_thread(samples.encode, await collect()))

    async def show_statistics(request: Request) -> Response:
        return JSONResponse(own_statistics())

    return [Route(SAMPLES, show_samples), Route(STATISTICS, show_statistics)]
