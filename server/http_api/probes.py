"""/livez and /readyz: whether the process runs, and whether it can answer."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from server.core.service import Service


def probe_routes(service: Service, *, with_reasons: bool) -> list[Route]:
    """Reasons name models and addresses."""

    async def live(request: Request) -> Response:
        return PlainTextResponse("live\n")

    async def ready(request: Request) -> Response:
        if service.is_ready():
            return PlainTextResponse("ready\n")
        reason = f": {service.pool.why_not_ready()}" if with_reasons else ""
        return PlainTextResponse(f"not ready{reason}\n", status_code=503)

    return [Route("/livez", live), Route("/readyz", ready)]
