"""What a client may hold of the gRPC server, over the wire."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio
import tritonclient.grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from convoy import Client
from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc
from server.grpc_api import server as grpc_server
from server.grpc_api.server import grpc_options
from server.settings import Settings

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = Settings(
    max_connections=3, max_concurrent_streams=5, max_header_bytes=4096, header_timeout_s=1
)
CHECK = health_pb2.HealthCheckRequest()
FRAME_HEAD_BYTES = 9
PING, ACK = 6, b"\x01"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # and empty settings


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def address() -> AsyncIterator[str]:
    async with serving_health() as address:
        yield address


@contextlib.asynccontextmanager
async def serving_health(*servicers: Callable[[grpc.aio.Server], Any]) -> AsyncIterator[str]:
    """Its address; `servicers` add methods beside health's."""
    server = grpc.aio.server(options=grpc_options(SETTINGS))
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for add in servicers:
        add(server)
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


async def test_an_idle_client_may_ping_as_often_as_the_limit_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grpc_server, "MIN_PING_INTERVAL_S", 0.2)
    async with serving_health() as address, pinging(address, every_s=0.5) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        await stub.Check(CHECK)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(channel.wait_for_state_change(READY), 5)  # ten pings


async def test_a_client_that_pings_more_often_is_disconnected() -> None:
    async with serving_health() as address, pinging(address, every_s=0.5) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        await stub.Check(CHECK)
        await asyncio.wait_for(channel.wait_for_state_change(READY), 20)


READY = grpc.ChannelConnectivity.READY


def pinging(address: str, every_s: float) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(
        address,
        options=[
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.keepalive_time_ms", round(every_s * 1e3)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        ],
    )


async def test_idle_connections_end_whatever_their_clients_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grpc_server, "MAX_IDLE_S", 0.5)
    async with serving_health() as address:
        held = [hold(address) for _ in range(SETTINGS.max_connections)]
        await asyncio.wait_for(asyncio.gather(*held), 30)


async def hold(address: str) -> None:
    """Acknowledges every ping, makes no call, and returns when the server has closed."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(PREFACE)
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readexactly(FRAME_HEAD_BYTES)
            payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
            if head[3] == PING and head[4:5] != ACK:
                writer.write(head[:4] + ACK + head[5:] + payload)
    writer.close()


async def test_clients_do_not_notice_that_their_idle_connection_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At gaps around the limit, so that some calls begin while the server says goodbye."""
    monkeypatch.setattr(grpc_server, "MAX_IDLE_S", 0.2)
    async with serving_health(add_classifier, add_inference) as address:
        triton = tritonclient.grpc.aio.InferenceServerClient(address)
        with Client(address) as client:
            for number in range(20):
                await asyncio.sleep(0.2 + number / 50)
                assert await asyncio.to_thread(client.models)
                assert await triton.is_server_live()
        await triton.close()


class Models(classifier_pb2_grpc.ImageClassifierServicer):
    async def ListModels(self, request: object, context: object) -> pb.ListModelsResponse:  # noqa: N802
        return pb.ListModelsResponse(models=[pb.Model(name="lenet5")])


class Live(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    async def ServerLive(self, request: object, context: object) -> Any:  # noqa: N802
        return service_pb2.ServerLiveResponse(live=True)


def add_classifier(server: grpc.aio.Server) -> None:
    classifier_pb2_grpc.add_ImageClassifierServicer_to_server(Models(), server)


def add_inference(server: grpc.aio.Server) -> None:
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Live(), server)
