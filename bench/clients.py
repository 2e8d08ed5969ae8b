"""The clients of the overload benchmark: both wires, and probes of the gateway's health."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import grpc
import httpx
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc

HTTP_EACH = 4  # every fourth request goes over HTTP


@dataclass(frozen=True)
class Wires:
    """The connections of one party."""

    channel: grpc.aio.Channel
    http: httpx.AsyncClient


@contextlib.asynccontextmanager
async def wires_to(grpc_address: str, http_url: str) -> AsyncIterator[Wires]:
    options = [("grpc.use_local_subchannel_pool", 1)]  # or parties would share a connection
    async with (
        grpc.aio.insecure_channel(grpc_address, options=options) as channel,
        httpx.AsyncClient(base_url=http_url, timeout=60.0, trust_env=False) as http,
    ):
        yield Wires(channel, http)


class Clients:
    """Clients of both wires, for one model and one image."""

    def __init__(self, wires: Wires, probes: Wires, model: str, image: bytes) -> None:
        self._http = wires.http
        self._probe = probes.http
        self._url = f"/v1/models/{model}:classify"
        self._request = pb.ClassifyRequest(model=model, image=pb.Image(content=image))
        self._classify = classifier_pb2_grpc.ImageClassifierStub(wires.channel).Classify
        # types-grpcio-health-checking lacks the attributes of the stub.
        self._check = health_pb2_grpc.HealthStub(probes.channel).Check  # type: ignore[attr-defined]

    def over(self, number: int) -> Callable[[float | None], Awaitable[tuple[str, bool]]]:
        """Returns the method that sends request `number`."""
        return self.over_grpc if number % HTTP_EACH else self.over_http

    async def over_grpc(self, timeout_s: float | None) -> tuple[str, bool]:
        try:
            await self._classify(self._request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return parse_error(error)
        return "OK", False

    async def over_http(self, timeout_s: float | None) -> tuple[str, bool]:
        headers = {"x-request-timeout-ms": f"{timeout_s * 1e3:.3f}"} if timeout_s else {}
        try:
            answer = await self._http.post(
                self._url, content=self._request.image.content, headers=headers
            )
        except httpx.HTTPError as error:
            return repr(error), False
        if answer.status_code == 200:
            return "OK", False
        return answer.json()["reason"], "retry-after" in answer.headers

    async def is_serving(self) -> tuple[str, bool]:
        try:
            answer = await self._check(health_pb2.HealthCheckRequest(), timeout=5.0)
        except grpc.aio.AioRpcError as error:
            return f"gRPC health: {error.code().name}", False
        status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        return "OK" if status == "SERVING" else f"gRPC health: {status}", False

    async def is_well(self, path: str) -> tuple[str, bool]:
        try:
            answer = await self._probe.get(path, timeout=5.0)
        except httpx.HTTPError as error:
            return f"{path}: {error!r}", False
        return "OK" if answer.status_code == 200 else f"{path}: {answer.status_code}", False


def parse_error(error: grpc.aio.AioRpcError) -> tuple[str, bool]:
    """Returns the gateway's reason, and whether it says when to retry."""
    reason, has_delay = error.code().name, False
    # types-grpcio-status knows calls of grpc alone, and not those of grpc.aio.
    if status := rpc_status.from_call(error):  # type: ignore[arg-type]
        for detail in status.details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                reason = info.reason
            has_delay |= detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)
    return reason, has_delay


@contextlib.asynccontextmanager
async def connect_clients(
    grpc_address: str, http_url: str, model: str, image: bytes
) -> AsyncIterator[Clients]:
    """Connects clients; the probes of the gateway's health have their own connections."""
    addresses = (grpc_address, http_url)
    async with wires_to(*addresses) as wires, wires_to(*addresses) as probes:
        yield Clients(wires, probes, model, image)
