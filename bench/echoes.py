"""Servers that answer with what they got, or refuse it, by the gateway's frameworks alone."""

from __future__ import annotations

import asyncio
import tempfile
from multiprocessing.connection import Connection
from typing import Any, Literal

import grpc

MODEL = "lenet5"
CLASSIFY = "/convoy.v1.ImageClassifier/Classify"
REFUSE = "/convoy.v1.ImageClassifier/Refuse"
HTTP_PATH = f"/v1/models/{MODEL}:classify"


async def in_a_thread(value: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, lambda: value)


def serve_grpc_echo(pipe: Connection, _: int) -> None:
    async def echo(message: bytes, context: Any) -> bytes:
        return bytes(await in_a_thread(await in_a_thread(message)))

    async def refuse(message: bytes, context: Any) -> None:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many images in flight")

    async def run(address: str) -> None:
        server = grpc.aio.server()
        methods: dict[str, Any] = {
            "Classify": grpc.unary_unary_rpc_method_handler(echo),
            "Refuse": grpc.unary_unary_rpc_method_handler(refuse),
        }
        service = grpc.method_handlers_generic_handler("convoy.v1.ImageClassifier", methods)
        server.add_generic_rpc_handlers((service,))
        server.add_insecure_port(address)
        await server.start()
        pipe.send(("", address))
        await server.wait_for_termination()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(f"unix:{folder}/grpc"))


def serve_h11_echo(pipe: Connection, _: int) -> None:
    serve_http_echo(pipe, "h11")


def serve_httptools_echo(pipe: Connection, _: int) -> None:
    serve_http_echo(pipe, "httptools")


def serve_http_echo(pipe: Connection, parser: Literal["h11", "httptools"]) -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    async def echo(request: Request) -> Response:
        return Response(await in_a_thread(await in_a_thread(await request.body())))

    async def refuse(request: Request) -> Response:
        await request.body()
        return JSONResponse({"detail": "too many images in flight"}, 429)

    routes = [Route(HTTP_PATH, echo, methods=["POST"]), Route("/refuse", refuse, methods=["POST"])]
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/http"
        pipe.send((f"unix:{path}", ""))
        uvicorn.run(
            Starlette(routes=routes), uds=path, http=parser, access_log=False, log_config=None
        )
