"""Triton's own clients, connected to a gateway with LeNet-5."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio

from tests.server.open_inference.clients import (
    Gateway,
)


@pytest.fixture
def url(lenet_gateway: Gateway) -> str:
    return f"{lenet_gateway.http}/v2/models/lenet5"


@pytest.fixture
def over_http(lenet_gateway: Gateway) -> Iterator[Any]:
    with tritonclient.http.InferenceServerClient(lenet_gateway.http.removeprefix("http://")) as it:
        yield it


@pytest.fixture
def over_grpc(lenet_gateway: Gateway) -> Iterator[Any]:
    with tritonclient.grpc.InferenceServerClient(lenet_gateway.grpc) as it:
        yield it


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest) -> Any:
    """Triton's own client, on each wire."""
    return request.getfixturevalue(f"over_{request.param}")


@pytest.fixture(scope="session")
def first_answer(lenet_gateway: Gateway, digit: bytes) -> Any:
    """What our own API says of the seven."""
    url = f"{lenet_gateway.http}/v1/models/lenet5:classify"
    return httpx.post(url, params={"top_k": 3}, content=digit).json()
