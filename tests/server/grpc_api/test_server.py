"""What a client may hold of the gRPC server, over the wire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from server.grpc_api.server import grpc_options
from server.settings import Settings

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = Settings(
    max_connections=3, max_concurrent_streams=5, max_header_bytes=4096, header_timeout_s=1
)
CHECK = health_pb2.HealthCheckRequest()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def address() -> AsyncIterator[str]:
    server = grpc.aio.server(options=grpc_options(SETTINGS))
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(0)


def channel_to(address: str) -> grpc.aio.Channel:
    """A connection of its own, which gRPC would share among the channels of a process."""
    return grpc.aio.insecure_channel(
        address,
        options=[
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
        ],
    )


def stub_for(channel: grpc.aio.Channel) -> Any:
    """A client of the health service, whose methods the type stubs leave out."""
    return health_pb2_grpc.HealthStub(channel)


async def test_metadata_beyond_the_limit_is_refused_and_the_connection_goes_on(
    address: str,
) -> None:
    async with channel_to(address) as channel:
        stub = stub_for(channel)
        await stub.Check(CHECK, metadata=[("fits", "x" * 3000)])
        calls = [stub.Check(CHECK, metadata=[("large", "x" * 4500)]) for _ in range(20)]
        codes = [await call.code() for call in calls]  # of many, since none may pass by chance
        assert set(codes) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        await stub.Check(CHECK)


async def test_connections_beyond_the_limit_are_closed_until_one_ends(address: str) -> None:
    channels = [channel_to(address) for _ in range(SETTINGS.max_connections)]
    for channel in channels:
        # Those of the tests before may not have ended yet.
        await stub_for(channel).Check(CHECK, timeout=10, wait_for_ready=True)
    async with channel_to(address) as one_more:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stub_for(one_more).Check(CHECK, timeout=5)
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    for channel in channels:
        await channel.close()
    async with channel_to(address) as later:
        await stub_for(later).Check(CHECK, timeout=5, wait_for_ready=True)


async def test_streams_beyond_the_limit_wait(address: str) -> None:
    async with channel_to(address) as channel:
        stub = stub_for(channel)
        watches = [stub.Watch(CHECK) for _ in range(SETTINGS.max_concurrent_streams)]
        for watch in watches:
            await watch.read()
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stub.Check(CHECK, timeout=0.3)
        assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        watches[0].cancel()
        await stub.Check(CHECK, timeout=5)


async def test_a_connection_that_says_nothing_is_closed(address: str) -> None:
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    began_s = time.monotonic()
    writer.write(b"PRI * HTTP/2.0")
    while await asyncio.wait_for(reader.read(1 << 16), 10):
        pass  # the server's settings
    assert time.monotonic() - began_s < 5
    writer.close()
    await writer.wait_closed()
