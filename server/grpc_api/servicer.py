"""convoy.v1.ImageClassifier: the methods of the contract over gRPC."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from convoy.v1 import classifier_pb2 as pb
from server.core.rpc_status import to_item_result
from server.core.service import Service
from server.grpc_api.interceptors import CallContext, current_call


class ImageClassifier:
    """Methods are named as in the contract, and take the raw bytes of their messages."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def Classify(self, raw: bytes, context: CallContext) -> pb.ClassifyResponse:  # noqa: N802
        call = current_call(context)
        message = call.read(raw, pb.ClassifyRequest)
        return await self._service.classify(call, message)

    async def BatchClassify(  # noqa: N802
        self, raw: bytes, context: CallContext
    ) -> pb.BatchClassifyResponse:
        call = current_call(context)
        message = call.read(raw, pb.BatchClassifyRequest)
        images = await self._service.classify_batch(call, message.requests)
        results = [to_item_result(image.request_id, image.result) for image in images]
        return pb.BatchClassifyResponse(results=results)

    async def StreamClassify(  # noqa: N802
        self, messages: AsyncIterator[bytes], context: CallContext
    ) -> AsyncIterator[pb.ItemResult]:
        items = self._service.classify_stream(current_call(context), messages)
        async with contextlib.aclosing(items):
            async for item in items:
                yield item

    async def ListModels(  # noqa: N802
        self, raw: bytes, context: CallContext
    ) -> pb.ListModelsResponse:
        current_call(context).read(raw, pb.ListModelsRequest)
        return pb.ListModelsResponse(models=self._service.pool.list())

    async def GetModel(self, raw: bytes, context: CallContext) -> pb.Model:  # noqa: N802
        call = current_call(context)
        message = call.read(raw, pb.GetModelRequest)
        call.model = message.model
        return self._service.pool.describe(message.model, message.version)
