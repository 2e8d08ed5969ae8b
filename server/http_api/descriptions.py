"""The routes that describe the HTTP API: /openapi.json for programs, /docs leads people to it."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from convoy.v1 import classifier_pb2 as pb
from server.http_api.openapi import document
from server.versions.pool import Pool


class Description:
    """The document, made once for each model that it takes its example from.

    Where clients need a key, there is no example: the document is open to all.
    """

    def __init__(self, pool: Pool, *, needs_key: bool) -> None:
        self._pool = pool
        self._needs_key = needs_key
        self._made_for: pb.Model | None = None
        self._made: bytes | None = None

    async def get(self) -> bytes:
        example = None if self._needs_key else first_ready(self._pool)
        if self._made is None or example != self._made_for:
            self._made = await asyncio.to_thread(self._make, example)
            self._made_for = example
        return self._made

    def _make(self, example: pb.Model | None) -> bytes:
        return bytes(JSONResponse(document(example, needs_key=self._needs_key)).body)


def description_routes(pool: Pool, *, needs_key: bool, has_page: bool) -> list[Route]:
    description = Description(pool, needs_key=needs_key)

    async def show_document(request: Request) -> Response:
        return Response(await description.get(), media_type="application/json")

    async def show_docs(request: Request) -> Response:
        return RedirectResponse("/#/api" if has_page else "/openapi.json")

    return [Route("/openapi.json", show_document), Route("/docs", show_docs)]


def first_ready(pool: Pool) -> pb.Model | None:
    for model in pool.list():
        if model.state == pb.STATE_READY and model.is_default:
            return pool.describe(model.name, model.version)
    return None
