"""The Open Inference Protocol over gRPC: inference.GRPCInferenceService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from google.protobuf import json_format
from tritonclient.grpc import service_pb2

from server.core.call import Call
from server.core.service import Service
from server.errors import AuthRequired, ServingError, Unimplemented
from server.grpc_api.interceptors import CallContext, current_call
from server.open_inference import metadata
from server.open_inference.inference import (
    InferenceAnswer,
    find_servable,
    require_responses,
    to_answer,
    to_requests,
)
from server.open_inference.model_statistics import Statistics
from server.settings import Settings

OPEN_INFERENCE = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]


def refusing(reason: str) -> Callable[..., Awaitable[None]]:
    async def refuse(self: GrpcInference, raw: bytes, context: CallContext) -> None:
        raise Unimplemented(reason)

    return refuse


class GrpcInference:
    """Methods are named as in the protocol, and take the raw bytes of their messages."""

    def __init__(self, service: Service, settings: Settings, statistics: Statistics) -> None:
        self._service = service
        self._settings = settings
        self._statistics = statistics

    # ------------------------------------------------------------ inference

    async def ModelInfer(self, raw: bytes, context: CallContext) -> Any:  # noqa: N802
        return await self._infer(current_call(context), raw)

    async def ModelStreamInfer(  # noqa: N802
        self, messages: AsyncIterator[bytes], context: CallContext
    ) -> AsyncIterator[Any]:
        """One request after the other; one that fails leaves the stream open."""
        async for raw in messages:
            call = self._service.next_message(current_call(context))
            try:
                with self._service.receive(call):
                    call.hold(raw)
                    self._service.charge(call)
                    response = await self._infer(call, raw)
            except AuthRequired:  # the key was withdrawn or replaced: the stream ends
                raise
            except ServingError as error:
                # Without the id, the client could not tell which request failed.
                yield service_pb2.ModelStreamInferResponse(
                    error_message=error.message,
                    infer_response=service_pb2.ModelInferResponse(id=call.request_id),
                )
            else:
                yield service_pb2.ModelStreamInferResponse(infer_response=response)

    async def _infer(self, call: Call, raw: bytes) -> Any:
        message = call.read(raw, service_pb2.ModelInferRequest)
        servable = find_servable(self._service.pool, message)
        with self._statistics.counting(servable) as counting:
            size = self._settings.max_batch_requests
            requests = await to_requests(call, message, servable, size)
            images = await self._service.classify_batch(call, requests)
            counting.responses = require_responses(images)
        return to_message(message.id, await to_answer(counting.responses, message))

    # ------------------------------------------------------------ health and metadata

    async def ServerLive(self, raw: bytes, context: CallContext) -> Any:  # noqa: N802
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, raw: bytes, context: CallContext) -> Any:  # noqa: N802
        return service_pb2.ServerReadyResponse(ready=self._service.is_ready())

    async def ModelReady(self, raw: bytes, context: CallContext) -> Any:  # noqa: N802
        message = current_call(context).read(raw, service_pb2.ModelReadyRequest)
        ready = metadata.is_model_ready(self._service.pool, message.name, message.version)
        return service_pb2.ModelReadyResponse(ready=ready)

    async def ServerMetadata(self, raw: bytes, context: CallContext) -> Any:  # noqa: N802
        return json_format.ParseDict(
            metadata.server_metadata(), service_pb2.ServerMetadataResponse()
        )

    async def ModelMetadata(self, raw: bytes, context: CallContext) -> Any:  # noqa: N802
        message = current_call(context).read(raw, service_pb2.ModelMetadataRequest)
        facts = metadata.model_metadata(self._service.pool, message.name, message.version)
        return json_format.ParseDict(facts, service_pb2.ModelMetadataResponse())

    async def ModelConfig(self, raw: bytes, context: CallContext) -> Any:  # noqa: N802
        message = current_call(context).read(raw, service_pb2.ModelConfigRequest)
        config = metadata.model_config(
            self._service.pool, message.name, message.version, self._settings.max_batch_requests
        )
        return json_format.ParseDict({"config": config}, service_pb2.ModelConfigResponse())

    async def ModelStatistics(self, raw: bytes, context: CallContext) -> Any:  # noqa: N802
        message = current_call(context).read(raw, service_pb2.ModelStatisticsRequest)
        facts = await metadata.model_statistics(
            self._service.pool, self._statistics, message.name, message.version
        )
        return json_format.ParseDict(facts, service_pb2.ModelStatisticsResponse())

    async def RepositoryIndex(self, raw: bytes, context: CallContext) -> Any:  # noqa: N802
        message = current_call(context).read(raw, service_pb2.RepositoryIndexRequest)
        index = metadata.repository_index(self._service.pool, only_ready=message.ready)
        return json_format.ParseDict({"models": index}, service_pb2.RepositoryIndexResponse())

    # ------------------------------------------------------------ what clients may not do here

    RepositoryModelLoad = RepositoryModelUnload = refusing(metadata.NO_CONTROL)
    SystemSharedMemoryStatus = SystemSharedMemoryRegister = refusing(metadata.NO_SHARED_MEMORY)
    SystemSharedMemoryUnregister = CudaSharedMemoryStatus = SystemSharedMemoryStatus
    CudaSharedMemoryRegister = CudaSharedMemoryUnregister = SystemSharedMemoryStatus
    TraceSetting = LogSettings = refusing(metadata.NO_SETTINGS)


def to_message(request_id: str, answer: InferenceAnswer) -> Any:
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
