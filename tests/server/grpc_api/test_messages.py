"""What strangers may hold of the gRPC server, with keys on, over the wire."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc
from server.grpc_api.messages import GATE_SIZE, GATE_SIZE_PER_HOST

SECRET = "convoy_secret-of-alice"
METADATA = [("authorization", f"Bearer {SECRET}")]
WATCH = "/grpc.health.v1.Health/Watch"
OPEN_METHODS = (
    WATCH,
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
)
LARGE = health_pb2.HealthCheckRequest(service="x" * 11_600_000).SerializeToString()
MAX_RECEIVED_MB = 35
HEALTH_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": "convoy.v1.ImageClassifier"},
}


@pytest.fixture(scope="module")
def guarded(
    serve_together: Callable[..., Any],
    shipped_lenet5: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    keys_path = tmp_path_factory.mktemp("keys") / "keys.toml"
    keys_path.write_text(f'[alice]\nsha256 = "{hashlib.sha256(SECRET.encode()).hexdigest()}"\n')
    gateway = serve_together(
        f"--repository={shipped_lenet5.parent}", "--models=lenet5", f"--api-keys={keys_path}"
    )
    gateway.wait_until_ready()
    return gateway


def channel_to(gateway: Any, *options: tuple[str, Any]) -> grpc.aio.Channel:
    """A connection of its own, which gRPC would share among the channels of a process."""
    own = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1))
    return grpc.aio.insecure_channel(gateway.grpc, options=[*own, *options])


async def end_of(channel: grpc.aio.Channel, method: str, messages: list[bytes]) -> grpc.StatusCode:
    """Sends them, and returns how the call ended."""
    stream: Any = channel.stream_stream(method)
    call: grpc.aio.StreamStreamCall[Any, Any] = stream(timeout=60)
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        for message in messages:
            await call.write(message)
    return await call.code()


@pytest.mark.parametrize("method", OPEN_METHODS)
async def test_a_large_message_of_a_stranger_is_refused(guarded: Any, method: str) -> None:
    async with channel_to(guarded) as channel:
        assert await end_of(channel, method, [LARGE]) is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_compressed_message_is_refused_by_name(guarded: Any) -> None:
    gzip = grpc.Compression.Gzip
    async with grpc.aio.insecure_channel(guarded.grpc, compression=gzip) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="'gzip' is disabled") as failure:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            await stub.Check(health_pb2.HealthCheckRequest(service="x" * 1000))
        assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_few_messages_that_do_not_come_are_waited_for(guarded: Any) -> None:
    """And for two seconds; the others are refused, and clients with a key are answered."""
    async with channel_to(guarded) as channel, channel_to(guarded) as other:
        methods = [method for method in OPEN_METHODS for _ in range(8)]
        ends = [asyncio.create_task(end_of(channel, method, [])) for method in methods]
        stub = classifier_pb2_grpc.ImageClassifierStub(other)
        await asyncio.sleep(0.5)
        assert (await stub.ListModels(pb.ListModelsRequest(), metadata=METADATA)).models
        codes = Counter(await asyncio.gather(*ends))
    assert set(codes) == {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    # Those that came in at first, and those that took their places at the last moment.
    assert codes[grpc.StatusCode.DEADLINE_EXCEEDED] <= 2 * GATE_SIZE_PER_HOST


async def test_a_connection_has_few_watches(guarded: Any) -> None:
    async with channel_to(guarded) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(4)]
        for watch in watches:
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        more = stub.Watch(health_pb2.HealthCheckRequest())
        assert await more.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        watches[0].cancel()
        assert await stub.Watch(health_pb2.HealthCheckRequest()).read()


@pytest.mark.parametrize("duration_s", [5, pytest.param(300, marks=pytest.mark.slow)])
async def test_large_messages_of_strangers_fill_no_memory_and_cost_others_no_request(
    guarded: Any, duration_s: float, digit: bytes
) -> None:
    before_mb = peak_mb(guarded)
    end_s = time.monotonic() + duration_s
    codes = Counter[grpc.StatusCode]()
    config = ("grpc.service_config", json.dumps(HEALTH_CONFIG))
    async with channel_to(guarded, config) as honest, contextlib.AsyncExitStack() as channels:
        stub = classifier_pb2_grpc.ImageClassifierStub(honest)
        request = pb.ClassifyRequest(model="lenet5", image=pb.Image(content=digit))
        await stub.Classify(request, metadata=METADATA, timeout=20, wait_for_ready=True)

        async def attack(channel: grpc.aio.Channel) -> None:
            while time.monotonic() < end_s:
                codes[await end_of(channel, WATCH, [LARGE])] += 1

        attackers = [await channels.enter_async_context(channel_to(guarded)) for _ in range(8)]
        attacks = [asyncio.create_task(attack(channel)) for channel in attackers * 4]
        while time.monotonic() < end_s:
            answer = await stub.Classify(request, metadata=METADATA, timeout=20)
            assert answer.classes[0].label == "7"
        await asyncio.gather(*attacks)
    assert codes[grpc.StatusCode.OK] == 0 and codes.total() > 20
    assert peak_mb(guarded) - before_mb < GATE_SIZE * MAX_RECEIVED_MB + 50


def peak_mb(gateway: Any) -> float:
    """The largest memory that the process has had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{gateway.process.pid}/status").read_text())
    assert found
    return int(found[1]) / 1e3
