"""grpc.health.v1: whether the gateway can answer, once or as a stream of changes.

grpcio's own servicer keeps the messages of its watchers, takes any number of them, and forgets all
watchers of a service when one of them leaves.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection
from typing import Any

import grpc
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc

from server.errors import Overloaded
from server.grpc_api.interceptors import CallContext

# A client needs one for each connection and service that it asks about.
MAX_WATCHES_PER_CONNECTION = 4

Status = pb.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):
    """All `services` have the same status."""

    def __init__(self, services: Collection[str]) -> None:
        self._services = frozenset(services)
        self._is_ready = False
        self._changed = asyncio.Condition()
        self._watches = Counter[str]()  # by connection

    async def show(self, is_ready: bool) -> None:
        self._is_ready = is_ready
        async with self._changed:
            self._changed.notify_all()

    async def Check(  # noqa: N802
        self, request: pb.HealthCheckRequest, context: CallContext
    ) -> pb.HealthCheckResponse:
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
        return Status(status=self._status(request.service))

    async def Watch(  # noqa: N802
        self, request: pb.HealthCheckRequest, context: CallContext
    ) -> AsyncIterator[pb.HealthCheckResponse]:
        """
        Raises:
            Overloaded: the connection has too many of them.
        """
        name, peer = request.service, context.peer()
        del request
        if self._watches[peer] >= MAX_WATCHES_PER_CONNECTION and not peer.startswith("unix"):
            raise Overloaded(f"a connection may watch {MAX_WATCHES_PER_CONNECTION} services")
        self._watches[peer] += 1
        try:
            async for status in self._changes(name):
                yield Status(status=status)
        finally:
            self._watches[peer] -= 1
            self._watches += Counter()  # forgets connections that are at zero

    async def _changes(self, name: str) -> AsyncIterator[Any]:
        while True:
            status = self._status(name)
            yield status
            async with self._changed:
                while self._status(name) == status:
                    await self._changed.wait()

    def _status(self, name: str) -> Any:
        if name not in self._services:
            return Status.SERVICE_UNKNOWN
        return Status.SERVING if self._is_ready else Status.NOT_SERVING
