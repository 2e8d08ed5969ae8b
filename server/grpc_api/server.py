"""The gRPC door: translates messages and errors, and nothing else.

One port carries convoy.v1.ImageClassifier, grpc.health.v1 and server reflection.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc
from server.core.admission import Admission
from server.core.classifier import Classifier
from server.core.keys import KeyInterceptor, Keys
from server.core.rpc_status import result_of, status_of
from server.errors import ImageTooLarge, ServingError
from server.grpc_api.grpc_options import grpc_limits
from server.grpc_api.interceptors import FaultInterceptor
from server.network.tls import Tls
from server.observability import tracing
from server.settings import Settings
from server.versions.pool import Pool

SERVICE = pb.DESCRIPTOR.services_by_name["ImageClassifier"].full_name
# Requests a little over the limit must reach us, so that we answer them and not gRPC.
SLACK_BYTES = 1 << 20

Context = grpc.aio.ServicerContext[Any, Any]


class ImageClassifier(classifier_pb2_grpc.ImageClassifierServicer):
    """The methods have the names that the contract gives them."""

    def __init__(
        self,
        classifier: Classifier,
        pool: Pool,
        admission: Admission,
        max_request_bytes: int,
    ) -> None:
        self._classifier = classifier
        self._pool = pool
        self._admission = admission
        self._max_request_bytes = max_request_bytes

    async def Classify(  # noqa: N802
        self, request: pb.ClassifyRequest, context: Context
    ) -> pb.ClassifyResponse:
        async with self._answering(context, [request]):
            return await self._classifier.classify(request, context.time_remaining())
        raise AssertionError("unreachable: abort raises")

    async def BatchClassify(  # noqa: N802
        self, request: pb.BatchClassifyRequest, context: Context
    ) -> pb.BatchClassifyResponse:
        async with self._answering(context, request.requests):
            items = await self._classifier.classify_batch(
                request.requests, context.time_remaining()
            )
            return pb.BatchClassifyResponse(results=[result_of(item) for item in items])
        raise AssertionError("unreachable: abort raises")

    async def StreamClassify(  # noqa: N802
        self, requests: AsyncIterator[pb.ClassifyRequest], context: Context
    ) -> AsyncIterator[pb.ItemResult]:
        tracing.arrived("grpc", dict(context.invocation_metadata() or ()))
        items = self._classifier.classify_stream(requests, context.time_remaining())
        async with contextlib.aclosing(items):
            async for item in items:
                yield result_of(item)

    async def ListModels(  # noqa: N802
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=self._pool.list())

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.Model:  # noqa: N802
        async with translating_errors(context):
            return self._pool.describe(request.model, request.version)
        raise AssertionError("unreachable: abort raises")

    @asynccontextmanager
    async def _answering(
        self, context: Context, requests: Sequence[pb.ClassifyRequest]
    ) -> AsyncIterator[None]:
        """Holds the images' bytes until all are answered."""
        tracing.arrived("grpc", dict(context.invocation_metadata() or ()))
        async with translating_errors(context):
            with self._admission.body() as body:
                with self._classifier.arriving():
                    # Not the message's ByteSize, for which it would be written out.
                    n_bytes = sum(len(request.image.content) for request in requests)
                    check_size(n_bytes, self._max_request_bytes)
                    body.add(n_bytes)
                yield


class GrpcDoor:
    """The server on its port. `serving` follows the gateway's readiness."""

    def __init__(
        self,
        classifier: Classifier,
        pool: Pool,
        admission: Admission,
        settings: Settings,
        *,
        keys: Keys | None,
        tls: Tls | None,
        more_services: Mapping[str, Callable[[grpc.aio.Server], None]],
    ) -> None:
        max_request_bytes = settings.max_request_bytes
        self._server = grpc.aio.server(
            # Keys first: what a stranger sends is not read.
            interceptors=[*([KeyInterceptor(keys)] if keys else []), FaultInterceptor()],
            options=[
                ("grpc.max_receive_message_length", max_request_bytes + SLACK_BYTES),
                ("grpc.max_send_message_length", -1),
                # Two gateways on one port would share its connections in silence.
                ("grpc.so_reuseport", 0),
                *grpc_limits(settings),
            ],
        )
        servicer = ImageClassifier(classifier, pool, admission, max_request_bytes)
        classifier_pb2_grpc.add_ImageClassifierServicer_to_server(  # type: ignore[no-untyped-call]
            servicer, self._server
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (SERVICE, *more_services, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        for add_to in more_services.values():
            add_to(self._server)
        self.port = (
            self._server.add_secure_port(settings.grpc_address, tls.grpc_credentials())
            if tls
            else self._server.add_insecure_port(settings.grpc_address)
        )

    async def start(self) -> None:
        await self.show_readiness(False)
        await self._server.start()

    async def show_readiness(self, is_ready: bool) -> None:
        status = health_pb2.HealthCheckResponse
        for name in ("", SERVICE):
            await self._health.set(name, status.SERVING if is_ready else status.NOT_SERVING)

    async def stop(self, grace_s: float) -> None:
        """Takes nothing new, and gives what is in flight `grace_s` to finish."""
        await self._server.stop(grace_s)


def check_size(n_bytes: int, max_request_bytes: int) -> None:
    if n_bytes > max_request_bytes:
        raise ImageTooLarge(
            f"the request has {n_bytes} bytes, at most {max_request_bytes} are allowed"
        )


@asynccontextmanager
async def translating_errors(context: Context) -> AsyncIterator[None]:
    try:
        yield
    except ServingError as error:
        await context.abort_with_status(rpc_status.to_status(status_of(error)))
