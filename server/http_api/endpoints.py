"""The methods of the contract over HTTP: JSON is its messages in snake_case."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from google.protobuf import json_format
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from convoy.v1 import classifier_pb2 as pb
from server.core.bounds import check_string
from server.core.rpc_status import to_item_result
from server.core.service import Service
from server.core.status import Status
from server.http_api.classification_json import response_to_dict
from server.http_api.json_response import JsonResponse
from server.http_api.middleware import cancel_on_disconnect, current_call
from server.http_api.requests import check_query, read_batch, read_request
from server.settings import Settings
from server.tasks import run_in_thread_if_large

# Writing more as JSON would hold the event loop for more than 2 ms.
LARGE_ANSWER_BYTES = 2 << 10


class Endpoint:
    """A function for a route, which Starlette's own wrapping of one would make slower."""

    def __init__(self, answer: Callable[[Request], Awaitable[Response]]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)


class Endpoints:
    def __init__(self, service: Service, settings: Settings) -> None:
        self._service = service
        self._settings = settings
        self._status = Status(service)

    def routes(self) -> list[Route]:
        model = "/v1/models/{model:model}"
        return [
            Route(f"{model}:classify", Endpoint(self.classify), methods=["POST"]),
            Route("/v1/models", self.list_models),
            Route(f"{model}:batchClassify", self.batch_classify, methods=["POST"]),
            Route(model, self.get_model),
            Route("/v1/status", self.get_status),
        ]

    async def classify(self, request: Request) -> Response:
        call = current_call(request)
        message = await read_request(request, call)
        answer = await cancel_on_disconnect(request, self._service.classify(call, message))
        return await json_response(answer)

    async def batch_classify(self, request: Request) -> Response:
        call = current_call(request)
        messages = await read_batch(request, call, self._settings.max_batch_requests)
        answering = self._service.classify_batch(call, messages)
        images = await cancel_on_disconnect(request, answering)
        results = [to_item_result(image.request_id, image.result) for image in images]
        return await json_response(pb.BatchClassifyResponse(results=results))

    async def list_models(self, request: Request) -> Response:
        check_query(request.query_params, [])
        return await json_response(pb.ListModelsResponse(models=self._service.pool.list()))

    async def get_model(self, request: Request) -> Response:
        call = current_call(request)
        call.model = request.path_params["model"]
        check_string("model", call.model)
        check_query(request.query_params, ["version"])
        version = request.query_params.get("version", "")
        return await json_response(self._service.pool.describe(call.model, version))

    async def get_status(self, request: Request) -> Response:
        check_query(request.query_params, [])
        # In ASCII, since names of files need not be UTF-8.
        facts = json.dumps(await self._status.facts_of_all())
        return Response(facts, media_type="application/json")


async def json_response(message: Message) -> Response:
    size = message.ByteSize()
    return await run_in_thread_if_large(size, to_json, message, limit_bytes=LARGE_ANSWER_BYTES)


def to_json(message: Message) -> Response:
    if isinstance(message, pb.ClassifyResponse):
        return JsonResponse(response_to_dict(message))
    return JsonResponse(
        json_format.MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
    )
