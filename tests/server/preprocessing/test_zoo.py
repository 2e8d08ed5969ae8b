"""Every file of the zoo ends in its own pixels or in its own error: decoded, sent, and mutated."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import grpc
import httpx
import numpy as np
import pytest
from google.rpc import error_details_pb2

from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc
from server.errors import ServingError
from server.preprocessing.decode import decode
from tests.server.rpc_errors import rpc_details

AT_ONCE = 16  # requests


class Gateway(Protocol):
    http: str
    grpc: str

    def log(self) -> str: ...


def what_came_of(specimen: Any, zoo: Any) -> str:
    """The outcome; for an answer that is not the picture, how they differ."""
    try:
        image = decode(specimen.content, max_bytes=zoo.MAX_BYTES, max_pixels=zoo.MAX_PIXELS)
    except ServingError as error:
        return error.reason
    as_is = image.pixels if image.pixels.mode == "L" else image.pixels.convert("RGB")
    pixels, expected = np.asarray(as_is).astype(float), specimen.pixels
    assert pixels.shape[:2] == (image.height, image.width)
    if expected is None:
        return str(zoo.ANSWER)
    if pixels.ndim > expected.ndim:  # grey that comes as three equal channels
        expected = expected[..., np.newaxis]
    if pixels.shape[:2] != expected.shape[:2]:
        return f"a picture of {pixels.shape}, and not of {expected.shape}"
    difference = np.abs(pixels - expected).mean()
    return str(zoo.ANSWER) if difference <= specimen.tolerance else f"{difference:.2f} levels off"


def test_every_file_gives_the_pixels_it_was_made_of_or_its_own_error(zoo: Any) -> None:
    specimens = list(zoo.zoo().values())
    assert len(specimens) >= 390
    outcomes = {specimen.name: what_came_of(specimen, zoo) for specimen in specimens}
    wrong = {
        specimen.name: outcomes[specimen.name]
        for specimen in specimens
        if outcomes[specimen.name] not in specimen.outcomes
    }
    assert not wrong


def test_mutated_files_do_no_worse_than_be_refused(tmp_path: Path) -> None:
    """The zoo itself, bombs included, and its mutations, in a child of bounded memory."""
    script = Path(__file__).with_name("fuzz.py")
    options = ["--seconds", "12", "--seed", "1", "--keep", str(tmp_path)]
    result = subprocess.run(
        [sys.executable, str(script), *options], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["tried"] > 1000
    assert report["failures"] == []


# ---------------------------------------------------------------- on both wires


@pytest.fixture
async def stub(lenet_gateway: Gateway) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(lenet_gateway.grpc) as channel:
        yield classifier_pb2_grpc.ImageClassifierStub(channel)


@pytest.fixture
async def client(lenet_gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=lenet_gateway.http, timeout=60) as client:
        yield client


async def over_http(client: httpx.AsyncClient, content: bytes) -> str:
    """The best label or the reason; the content type is wrong for all but GIF."""
    response = await client.post(
        "/v1/models/lenet5:classify", content=content, headers={"content-type": "image/gif"}
    )
    body = response.json()
    return str(body["classes"][0]["label"] if response.is_success else body["reason"])


async def over_grpc(stub: Any, content: bytes) -> str:
    request = pb.ClassifyRequest(model="lenet5", image=pb.Image(content=content))
    try:
        return str((await stub.Classify(request)).classes[0].label)
    except grpc.aio.AioRpcError as error:
        info = error_details_pb2.ErrorInfo()
        rpc_details(error)[0].Unpack(info)
        return str(info.reason)


async def test_the_gateway_answers_each_file_alike_on_both_wires_and_good_requests_beside(
    zoo: Any, client: httpx.AsyncClient, stub: Any, lenet_gateway: Gateway, digit: bytes
) -> None:
    turn = asyncio.Semaphore(AT_ONCE)

    async def send(specimen: Any) -> tuple[str, ...]:
        async with turn:
            return await asyncio.gather(
                over_http(client, specimen.content),
                over_http(client, digit),
                over_grpc(stub, specimen.content),
                over_grpc(stub, digit),
            )

    specimens = list(zoo.zoo().values())
    found = await asyncio.gather(*(send(specimen) for specimen in specimens))
    wrong = {}
    for specimen, (http, http_beside, rpc, rpc_beside) in zip(specimens, found, strict=True):
        answered = {"7"} if specimen.is_seven else {"IMAGE_UNSUITABLE", *"0123456789"}
        allowed = set(specimen.outcomes) | (answered if zoo.ANSWER in specimen.outcomes else set())
        if http != rpc or http not in allowed or (http_beside, rpc_beside) != ("7", "7"):
            wrong[specimen.name] = (http, rpc, http_beside, rpc_beside)
    assert not wrong
    assert "Traceback" not in lenet_gateway.log()
