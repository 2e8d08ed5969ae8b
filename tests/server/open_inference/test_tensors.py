"""Images come in as tensors, and answers go out as tensors."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import httpx
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from tests.server.open_inference.clients import (
    an_input,
    image_input,
    kind_of,
)


def test_only_the_outputs_that_are_asked_for_are_answered(client: Any, digit: bytes) -> None:
    outputs = [kind_of(client).InferRequestedOutput(name) for name in ("index", "label")]
    result = client.infer("lenet5", image_input(client, digit), outputs=outputs)
    assert result.as_numpy("index")[0, 0] == 7
    assert result.as_numpy("label")[0, 0] == b"7"
    assert result.as_numpy("score") is None


def test_images_in_json_are_base64(url: str, digit: bytes, first_answer: Any) -> None:
    text = base64.b64encode(digit).decode()
    for more in ({}, {"parameters": {"content_type": "base64"}}, {"parameters": None}):
        for shape, data in (([1], [text]), ([2, 1], [[text], [text]])):
            tensor = {"name": "image", "shape": shape, "datatype": "BYTES", "data": data, **more}
            asked = {"inputs": [tensor], "parameters": {"top_k": 3}, "id": "mine"}
            response = httpx.post(f"{url}/infer", json=asked)
            assert response.headers["content-type"] == "application/json"
            answer = response.json()
            assert answer["id"] == "mine"
            for output in answer["outputs"]:
                row = [class_[output["name"]] for class_ in first_answer["classes"]]
                assert output["shape"] == [shape[0], 3]
                assert output["data"] == pytest.approx(row * shape[0])


def test_each_output_comes_in_json_or_binary_as_it_is_wanted(over_http: Any, digit: bytes) -> None:
    outputs = [
        tritonclient.http.InferRequestedOutput("label", binary_data=False),
        tritonclient.http.InferRequestedOutput("score", binary_data=True),
    ]
    result = over_http.infer("lenet5", image_input(over_http, digit), outputs=outputs)
    assert result.get_output("label")["data"][0] == "7"
    assert result.get_output("score")["parameters"] == {"binary_data_size": 5 * 4}
    assert result.as_numpy("score").shape == (1, 5)


def test_a_large_batch_is_refused(client: Any, digit: bytes) -> None:
    with pytest.raises(InferenceServerException, match="where N is 1 to 64"):
        client.infer("lenet5", image_input(client, *[digit] * 65))


def test_what_is_left_over_behind_the_inputs_is_an_error(url: str, digit: bytes) -> None:
    raw = struct.pack("<I", len(digit)) + digit
    text = json.dumps(an_input(data=None, parameters={"binary_data_size": len(raw)})).encode()
    headers = {"inference-header-content-length": str(len(text))}
    assert httpx.post(f"{url}/infer", content=text + raw, headers=headers).is_success
    response = httpx.post(f"{url}/infer", content=text + raw + b"!", headers=headers)
    assert response.status_code == 400 and "1 bytes are left over" in response.json()["error"]
