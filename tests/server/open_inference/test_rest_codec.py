"""What is no inference request in JSON, binary or a compressed body is refused by name."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from typing import Any

import httpx
import pytest

from tests.server.open_inference.clients import (
    an_input,
)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (b"{", "not a valid inference request"),
        (b"[" * 9999, "more than 16 levels deep"),
        (b"[" * 10_001, "more than 10000 values"),
        (b'{"inputs": 1}', "inputs"),
        ({"inputs": []}, "the inputs are none"),
        (an_input(name="picture"), "picture BYTES"),
        (an_input(datatype="UINT8"), "image UINT8"),
        (an_input(shape=[2]), "1 elements"),
        (an_input(shape=[1, 2]), "[N] or [N, 1]"),
        (an_input(shape=[-1]), "[N] or [N, 1]"),
        (an_input(shape=[0], data=[]), "[N] or [N, 1]"),
        (an_input(shape=[2**70]), "shape"),
        (an_input(data=[1]), "inputs.0.data"),
        (an_input(data=["AA!AA"]), "not base64"),
        (an_input(parameters={"content_type": "str"}), "must be base64"),
        (an_input(parameters={"binary_data_size": 8}), "only 0 bytes follow"),
        (an_input(parameters={"shared_memory_region": "x"}), "shared memory"),
        ({**an_input(), "parameters": {"topk": 3}}, "'topk'"),
        ({**an_input(), "parameters": {"top_k": 0}}, "top_k is 0"),
        ({**an_input(), "parameters": {"top_k": "3"}}, "top_k is '3'"),
        ({**an_input(), "parameters": {"top_k": True}}, "top_k is True"),
        ({**an_input(), "parameters": {"top_k": 2**70}}, "top_k"),
        ({**an_input(), "parameters": {"timeout": -1}}, "timeout is -1"),
        ({**an_input(), "outputs": [{"name": "logits"}]}, "label, score, index"),
        (
            {**an_input(), "outputs": [{"name": "label", "parameters": {"classification": 3}}]},
            "classification is not supported",
        ),
    ],
)
def test_bad_requests_are_named(url: str, digit: bytes, asked: Any, said: str) -> None:
    content = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    response = httpx.post(f"{url}/infer", content=content)
    assert (response.status_code, response.json()["reason"]) == (400, "MALFORMED_REQUEST")
    assert said in response.json()["error"]


@pytest.mark.parametrize(
    ("header_length", "raw", "said"),
    [
        ("x", b"", "must be a number of bytes"),
        ("9999", b"", "must be a number of bytes"),
        (None, b"\x05", "not a valid inference request"),
        ("", struct.pack("<I", 5) + b"four", "cut off"),
        ("", b"abc", "cut off"),
        ("", struct.pack("<I", 4) + b"fourmore", "4 bytes behind"),
    ],
)
def test_bad_binary_tensors_are_named(
    url: str, header_length: str | None, raw: bytes, said: str
) -> None:
    text = json.dumps(an_input(data=None, parameters={"binary_data_size": len(raw)})).encode()
    length = header_length if header_length is None else header_length or str(len(text))
    headers = {} if length is None else {"inference-header-content-length": length}
    response = httpx.post(f"{url}/infer", content=text + raw, headers=headers)
    assert (response.status_code, response.json()["reason"]) == (400, "MALFORMED_REQUEST")
    assert said in response.json()["error"]


@pytest.mark.parametrize(
    ("encoding", "content", "said"),
    [
        ("br", b"x", "must be gzip or deflate"),
        ("gzip", b"no gzip", "cannot be inflated"),
        ("gzip", gzip.compress(b"x" * 1000, mtime=0)[:-9], "it is cut off"),
        ("deflate", zlib.compress(bytes(64 << 20)), f"more than {32 << 20} bytes"),
    ],
    ids=["brotli", "broken", "cut off", "bomb"],
)
def test_bodies_that_cannot_be_inflated_are_named(
    url: str, encoding: str, content: bytes, said: str
) -> None:
    headers = {"content-encoding": encoding, "inference-header-content-length": "0"}
    response = httpx.post(f"{url}/infer", content=content, headers=headers)
    assert response.status_code == (413 if "more than" in said else 400)
    assert said in response.json()["error"]
