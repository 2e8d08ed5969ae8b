"""What the tests of the Open Inference Protocol share: requests, by the clients of others."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio


class Gateway(Protocol):
    http: str
    grpc: str
    admin: str

    def log(self) -> str: ...
    def wait_for(self, is_so: Callable[[], bool]) -> None: ...


def kind_of(client: Any) -> Any:
    """The module of the client, which has the classes of its inputs and outputs."""
    is_http = "http" in type(client).__module__
    return tritonclient.http if is_http else tritonclient.grpc


def image_input(client: Any, *images: bytes, shape: tuple[int, ...] | None = None) -> list[Any]:
    pixels = np.array(images, np.object_).reshape(shape or (len(images), 1))
    tensor = kind_of(client).InferInput("image", pixels.shape, "BYTES")
    tensor.set_data_from_numpy(pixels)
    return [tensor]


def an_input(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": ["AAAA"]}
    return {"inputs": [{**tensor, **changes}]}


def check_seven(result: Any, expected: Any, n: int = 1) -> None:
    """Each row of the result is what our own API says."""
    dtypes = {"label": np.bytes_, "score": np.float32, "index": np.int32}
    for name, dtype in dtypes.items():
        row: npt.NDArray[Any] = np.array([class_[name] for class_ in expected["classes"]], dtype)
        assert result.as_numpy(name).tolist() == [row.tolist()] * n, name


def as_json(client: Any) -> dict[str, bool]:
    """gRPC's client gives messages unless told otherwise."""
    return {"as_json": True} if kind_of(client) is tritonclient.grpc else {}


def whole(found: Any) -> Any:
    """protobuf's JSON has 64-bit integers as text."""
    return json.loads(json.dumps(found), parse_int=str)
