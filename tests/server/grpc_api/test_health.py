"""grpc.health.v1 of the gateway, over the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc

from server.gateway import Gateway
from server.grpc_api.health import Health
from server.grpc_api.interceptors import ErrorInterceptor
from server.settings import Settings

Status = pb.HealthCheckResponse


@pytest.fixture
def health() -> Health:
    return Health(("", "a.Service"))


@pytest_asyncio.fixture
async def stub(health: Health, shipped_lenet5: Path) -> AsyncIterator[Any]:
    service = Gateway(Settings(repository=shipped_lenet5.parent)).service
    server = grpc.aio.server(interceptors=[ErrorInterceptor(service)])
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield health_pb2_grpc.HealthStub(channel)
    await server.stop(0)


async def status_of(stub: Any, name: str) -> Any:
    return (await stub.Check(pb.HealthCheckRequest(service=name))).status


async def test_check_reports_readiness_and_knows_its_services(stub: Any, health: Health) -> None:
    assert await status_of(stub, "") == Status.NOT_SERVING
    await health.show(True)
    assert await status_of(stub, "") == await status_of(stub, "a.Service") == Status.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await status_of(stub, "another.Service")
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND


async def test_watch_reports_each_change_even_if_another_watch_has_ended(
    stub: Any, health: Health
) -> None:
    watches = [stub.Watch(pb.HealthCheckRequest()) for _ in range(2)]
    for watch in watches:
        assert (await watch.read()).status == Status.NOT_SERVING
    watches[0].cancel()
    assert await watches[0].code() is grpc.StatusCode.CANCELLED
    for is_ready, status in ((True, Status.SERVING), (False, Status.NOT_SERVING)):
        await health.show(is_ready)
        assert (await watches[1].read()).status == status


async def test_watch_of_an_unknown_service_says_so_and_stays(stub: Any) -> None:
    watch = stub.Watch(pb.HealthCheckRequest(service="another.Service"))
    assert (await watch.read()).status == Status.SERVICE_UNKNOWN
    assert not watch.done()
    watch.cancel()
