"""What a supervisor asks its workers, each on a socket that nobody else can reach."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.admin.metrics import Collect
from server.observability import exposition

SAMPLES, STATISTICS = "/samples", "/statistics"


def worker_routes(collect: Collect, own_statistics: Callable[[], object]) -> list[Route]:
    async def show_samples(request: Request) -> Response:
        return Response(await asyncio.to_thread(exposition.to_json, await collect()))

    async def show_statistics(request: Request) -> Response:
        return JSONResponse(own_statistics())

    return [Route(SAMPLES, show_samples), Route(STATISTICS, show_statistics)]
