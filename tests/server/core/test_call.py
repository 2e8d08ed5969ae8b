"""One request as one object: how far it is to the pipeline, and one id for whatever fails early."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from tritonclient.grpc import service_pb2

from convoy.v1 import classifier_pb2 as pb
from server import pipeline
from server.gateway import Gateway
from server.settings import Settings

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).resolve().parents[3]
MAX_FILES = 4


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def settings(
    tmp_path_factory: pytest.TempPathFactory, shipped_lenet5: Path
) -> AsyncIterator[Settings]:
    """Those of a gateway that runs in this process, so that its tracebacks can be read."""
    folder = tmp_path_factory.mktemp("call")
    settings = Settings(
        repository=shipped_lenet5.parent,
        models=["lenet5"],
        http_address=f"unix:{folder}/http",
        grpc_address=f"unix:{folder}/grpc",
        metrics_address=f"unix:{folder}/metrics",
        not_ready_s=0,
    )
    running = asyncio.create_task(Gateway(settings).run())
    async with http_client(settings) as client:
        while not await is_ready(client):
            assert not running.done(), "the gateway ended"
            await asyncio.sleep(0.05)
    yield settings
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def http_client(settings: Settings) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=settings.http_address.removeprefix("unix:"))
    return httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=30)


async def is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False


# ---------------------------------------------------------------- how far it is


Ask = Callable[[Settings, bytes], Awaitable[None]]


async def classify_over_http(settings: Settings, image: bytes) -> None:
    async with http_client(settings) as client:
        assert (await client.post("/v1/models/lenet5:classify", content=image)).status_code == 500


async def infer_over_http(settings: Settings, image: bytes) -> None:
    headers = {"inference-header-content-length": "0"}
    async with http_client(settings) as client:
        url = "/v2/models/lenet5/infer"
        assert (await client.post(url, content=image, headers=headers)).status_code == 500


async def ask_over_grpc(settings: Settings, method: str, message: Any) -> None:
    async with grpc.aio.insecure_channel(settings.grpc_address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await channel.unary_unary(method)(message.SerializeToString())
    assert failure.value.code() is grpc.StatusCode.INTERNAL


async def classify_over_grpc(settings: Settings, image: bytes) -> None:
    request = pb.ClassifyRequest(model="lenet5", image=pb.Image(content=image))
    await ask_over_grpc(settings, "/convoy.v1.ImageClassifier/Classify", request)


async def infer_over_grpc(settings: Settings, image: bytes) -> None:
    request = service_pb2.ModelInferRequest(model_name="lenet5")
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(struct.pack("<I", len(image)) + image)
    await ask_over_grpc(settings, "/inference.GRPCInferenceService/ModelInfer", request)


@pytest.mark.parametrize(
    "ask", [classify_over_http, classify_over_grpc, infer_over_http, infer_over_grpc]
)
async def test_a_request_passes_few_files_on_its_way_to_the_pipeline(
    settings: Settings,
    digit: bytes,
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("raised in the preparation")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "decode", fail)
        await ask(settings, digit)
    (error,) = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert isinstance(error, ZeroDivisionError)
    frames = traceback.extract_tb(error.__traceback__)
    files = {frame.filename for frame in frames if frame.filename.startswith(f"{ROOT}/server/")}
    assert f"{ROOT}/server/pipeline.py" in files
    assert len(files) <= MAX_FILES, sorted(files)
