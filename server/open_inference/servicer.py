"""The gRPC door of the Open Inference Protocol: inference.GRPCInferenceService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf import json_format
from tritonclient.grpc import service_pb2, service_pb2_grpc

from server.errors import ImageTooLarge, ServingError
from server.grpc_api.server import Context, translating_errors
from server.observability import tracing
from server.open_inference import metadata
from server.open_inference.inference import Answer, OpenInference

OPEN_INFERENCE = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name


def add_open_inference(service: OpenInference, server: grpc.aio.Server) -> None:
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(GrpcInference(service), server)


def refusing(reason: str) -> Callable[..., Awaitable[None]]:
    async def refuse(self: GrpcInference, request: object, context: Context) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, reason)

    return refuse


class GrpcInference(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The methods have the names that the protocol gives them."""

    def __init__(self, service: OpenInference) -> None:
        self._service = service

    # ------------------------------------------------------------ inference

    async def ModelInfer(self, request: Any, context: Context) -> Any:  # noqa: N802
        async with translating_errors(context):
            return message_of(request.id, await self._answer(request, context))

    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[Any], context: Context
    ) -> AsyncIterator[Any]:
        """One request after the other; one that fails leaves the stream open."""
        async for request in requests:
            try:
                self._service.charge()
                answer = await self._answer(request, context)
            except ServingError as error:
                # Beside the message goes the identifier, or nobody knows which request it was.
                yield service_pb2.ModelStreamInferResponse(
                    error_message=error.message,
                    infer_response=service_pb2.ModelInferResponse(id=request.id),
                )
            else:
                yield service_pb2.ModelStreamInferResponse(
                    infer_response=message_of(request.id, answer)
                )

    async def _answer(self, request: Any, context: Context) -> Answer:
        """Holds the request's images until it is answered."""
        tracing.arrived("grpc", dict(context.invocation_metadata() or ()))
        n_bytes = content_bytes(request)
        with self._service.admission.body() as body:
            with self._service.classifier.arriving(request.model_name):
                check_size(n_bytes, self._service.max_request_bytes)
                body.add(n_bytes)
            return await self._service.answer(request, n_bytes, context.time_remaining())

    # ------------------------------------------------------------ health and facts

    async def ServerLive(self, request: Any, context: Context) -> Any:  # noqa: N802
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Context) -> Any:  # noqa: N802
        return service_pb2.ServerReadyResponse(ready=self._service.is_ready())

    async def ModelReady(self, request: Any, context: Context) -> Any:  # noqa: N802
        ready = metadata.is_model_ready(self._service.pool, request.name, request.version)
        return service_pb2.ModelReadyResponse(ready=ready)

    async def ServerMetadata(self, request: Any, context: Context) -> Any:  # noqa: N802
        return json_format.ParseDict(
            metadata.server_metadata(), service_pb2.ServerMetadataResponse()
        )

    async def ModelMetadata(self, request: Any, context: Context) -> Any:  # noqa: N802
        async with translating_errors(context):
            found = metadata.model_metadata(self._service.pool, request.name, request.version)
            return json_format.ParseDict(found, service_pb2.ModelMetadataResponse())

    async def ModelConfig(self, request: Any, context: Context) -> Any:  # noqa: N802
        service = self._service
        async with translating_errors(context):
            config = metadata.model_config(
                service.pool, request.name, request.version, service.max_batch_requests
            )
            return json_format.ParseDict({"config": config}, service_pb2.ModelConfigResponse())

    async def ModelStatistics(self, request: Any, context: Context) -> Any:  # noqa: N802
        service = self._service
        async with translating_errors(context):
            found = metadata.model_statistics(
                service.pool, service.statistics, request.name, request.version
            )
            return json_format.ParseDict(found, service_pb2.ModelStatisticsResponse())

    async def RepositoryIndex(self, request: Any, context: Context) -> Any:  # noqa: N802
        index = metadata.repository_index(self._service.pool, only_ready=request.ready)
        return json_format.ParseDict({"models": index}, service_pb2.RepositoryIndexResponse())

    # ------------------------------------------------------------ what nobody may from here

    RepositoryModelLoad = RepositoryModelUnload = refusing(metadata.NO_CONTROL)
    SystemSharedMemoryStatus = SystemSharedMemoryRegister = refusing(metadata.NO_SHARED_MEMORY)
    SystemSharedMemoryUnregister = CudaSharedMemoryStatus = SystemSharedMemoryStatus
    CudaSharedMemoryRegister = CudaSharedMemoryUnregister = SystemSharedMemoryStatus
    TraceSetting = LogSettings = refusing(metadata.NO_SETTINGS)


def check_size(n_bytes: int, max_request_bytes: int) -> None:
    if n_bytes > max_request_bytes:
        raise ImageTooLarge(
            f"the request has {n_bytes} bytes of images, at most {max_request_bytes} are allowed"
        )


def content_bytes(request: Any) -> int:
    """Of its images. The size of the whole message would be had by writing it: 160 ms for 16 MB."""
    raw = sum(len(tensor) for tensor in request.raw_input_contents)
    return raw + sum(
        len(image) for tensor in request.inputs for image in tensor.contents.bytes_contents
    )


def message_of(request_id: str, answer: Answer) -> Any:
    message = service_pb2.ModelInferResponse(
        model_name=answer.model,
        model_version=answer.version,
        id=request_id,
        raw_output_contents=[tensor.binary() for tensor in answer.outputs],
    )
    for name, value in answer.parameters.items():
        message.parameters[name].string_param = value
    for tensor in answer.outputs:
        message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    return message
