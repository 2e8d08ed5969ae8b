"""Errors of gRPC methods, over the wire."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2

from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc
from server.gateway import Gateway
from server.grpc_api.interceptors import ErrorInterceptor
from server.settings import Settings
from tests.server.rpc_errors import rpc_details

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Faulty(classifier_pb2_grpc.ImageClassifierServicer):
    """Answers one model's name, and fails on all others."""

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.Model:  # noqa: N802
        if request.model == "gone":
            await context.abort(grpc.StatusCode.NOT_FOUND, "told already")
        return pb.Model(name={"lenet5": "lenet5"}[request.model])

    async def StreamClassify(  # noqa: N802
        self, requests: AsyncIterator[pb.ClassifyRequest], context: Any
    ) -> AsyncIterator[pb.ItemResult]:
        async for request in requests:
            yield pb.ItemResult(request_id={"lenet5": "one"}[request.model])


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def channel(shipped_lenet5: Path) -> AsyncIterator[grpc.aio.Channel]:
    service = Gateway(Settings(repository=shipped_lenet5.parent)).service
    server = grpc.aio.server(
        interceptors=[ErrorInterceptor(service, message_timeout_s=0.5, pause_timeout_s=1.0)]
    )
    classifier_pb2_grpc.add_ImageClassifierServicer_to_server(Faulty(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)


@pytest.fixture
def get_model(channel: grpc.aio.Channel) -> Any:
    return channel.unary_unary("/convoy.v1.ImageClassifier/GetModel")


async def failure_of(call: Any) -> tuple[str, str, str]:
    """Code, reason and message."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    info = error_details_pb2.ErrorInfo()
    for detail in rpc_details(failure.value)[:1]:
        detail.Unpack(info)
    return failure.value.code().name, info.reason, str(failure.value.details())


async def test_a_sound_call_is_answered(get_model: Any) -> None:
    answer = await get_model(pb.GetModelRequest(model="lenet5").SerializeToString())
    assert pb.Model.FromString(answer).name == "lenet5"


async def test_bytes_that_are_no_message_are_malformed(get_model: Any) -> None:
    code, reason, message = await failure_of(get_model(b"\xff" * 9))
    assert (code, reason) == ("INVALID_ARGUMENT", "MALFORMED_REQUEST")
    assert "Error" not in message


async def test_a_fault_is_internal_and_stays_in_the_log(
    get_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    request = pb.GetModelRequest(model="secret").SerializeToString()
    code, reason, message = await failure_of(get_model(request))
    assert (code, reason) == ("INTERNAL", "INTERNAL")
    assert "secret" not in message and "KeyError" not in message
    assert "KeyError: 'secret'" in caplog.text


async def test_what_a_method_tells_itself_goes_through(
    get_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    request = pb.GetModelRequest(model="gone").SerializeToString()
    assert await failure_of(get_model(request)) == ("NOT_FOUND", "", "told already")
    assert "internal error" not in caplog.text


async def test_a_stream_is_answered_up_to_what_cannot_be_read(channel: grpc.aio.Channel) -> None:
    for second, code in ((b"\xff" * 9, "INVALID_ARGUMENT"), (b"", "INTERNAL")):
        sound = pb.ClassifyRequest(model="lenet5").SerializeToString()
        stream: Any = channel.stream_stream("/convoy.v1.ImageClassifier/StreamClassify")
        call = stream(iter([sound, second]))
        assert pb.ItemResult.FromString(await call.read()).request_id == "one"
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await call.read()
        assert failure.value.code().name == code


async def test_a_method_that_is_not_there_is_unimplemented(channel: grpc.aio.Channel) -> None:
    nothing: Any = channel.unary_unary("/convoy.v1.ImageClassifier/Nothing")
    assert (await failure_of(nothing(b"")))[0] == "UNIMPLEMENTED"


async def test_a_message_that_does_not_come_is_not_waited_for(channel: grpc.aio.Channel) -> None:
    for method, timeout_s in (("GetModel", 0.5), ("StreamClassify", 1.0)):
        began_s = time.monotonic()
        # As a stream, which lets a client begin a call and send nothing.
        stream: Any = channel.stream_stream(f"/convoy.v1.ImageClassifier/{method}")
        code, reason, _ = await failure_of(stream(timeout=10).read())
        assert (code, reason) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
        assert time.monotonic() - began_s > timeout_s * 0.9


async def test_a_call_that_ends_without_a_message_is_malformed(channel: grpc.aio.Channel) -> None:
    stream: Any = channel.stream_stream("/convoy.v1.ImageClassifier/GetModel")
    code, reason, _ = await failure_of(stream(iter([])).read())
    assert (code, reason) == ("INVALID_ARGUMENT", "MALFORMED_REQUEST")
