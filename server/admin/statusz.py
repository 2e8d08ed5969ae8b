"""The status page for operators: what is served, what is not and why, and how it performs.

One set of facts, as HTML for a browser, as JSON for a program, as text for curl.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from server.observability.metrics import Facts

# No script, nothing from other sites, in no frame: whatever gets into the page stays text.
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


def statusz_route(collect: Callable[[], Awaitable[Facts]]) -> Route:
    async def show_status(request: Request) -> Response:
        return answer(await collect(), request.headers.get("accept", ""))

    return Route("/statusz", show_status)


def answer(facts: Facts, accept: str) -> Response:
    # Not before somebody looks: it imports rich, which would be 30 ms of each start.
    from server.admin.statusz_tables import render_html, render_text

    if "text/html" in accept:
        return HTMLResponse(render_html(facts), headers=HEADERS)
    if "application/json" in accept:
        # In ASCII, since names of files need not be UTF-8.
        return Response(json.dumps(facts), headers=HEADERS, media_type="application/json")
    return PlainTextResponse(render_text(facts), headers=HEADERS)
