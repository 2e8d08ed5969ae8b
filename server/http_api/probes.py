"""/livez and /readyz: whether the process runs, and whether it can answer."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from server.core.service import Service


def probe_routes(service: Service) -> list[Route]:
    async def live(request: Request) -> Response:
        return PlainTextResponse("live\n")

    async def ready(request: Request) -> Response:
        if service.is_ready():
            return PlainTextResponse("ready\n")
        return PlainTextResponse(f"not ready: {service.pool.why_not_ready()}\n", status_code=503)

    return [Route("/livez", live), Route("/readyz", ready)]
