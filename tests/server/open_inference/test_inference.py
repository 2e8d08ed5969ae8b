"""An inference gives the answer of our own API on both wires, and errors say what is wrong."""

from __future__ import annotations

import re
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from tests.server.open_inference.clients import (
    Gateway,
    check_seven,
    image_input,
    kind_of,
)


def test_tritons_clients_get_the_answer_of_our_own_api(
    client: Any, digit: bytes, first_answer: Any
) -> None:
    result = client.infer("lenet5", image_input(client, digit), parameters={"top_k": 3})
    check_seven(result, first_answer)
    assert result.as_numpy("score").dtype == np.float32
    assert result.as_numpy("index").dtype == np.int32


async def test_the_asynchronous_clients_too(
    lenet_gateway: Gateway, digit: bytes, first_answer: Any
) -> None:
    for library, address in (
        (tritonclient.http.aio, lenet_gateway.http.removeprefix("http://")),
        (tritonclient.grpc.aio, lenet_gateway.grpc),
    ):
        async with library.InferenceServerClient(address) as client:
            inputs = image_input(client, digit)
            check_seven(await client.infer("lenet5", inputs, parameters={"top_k": 3}), first_answer)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_a_batch_has_a_row_for_each_image(
    client: Any, digit: bytes, first_answer: Any, shape: tuple[int, ...]
) -> None:
    inputs = image_input(client, digit, digit, digit, shape=shape)
    result = client.infer("lenet5", inputs, parameters={"top_k": 3})
    check_seven(result, first_answer, n=3)


def test_without_top_k_there_are_five_classes_and_never_more_than_the_model_has(
    client: Any, digit: bytes
) -> None:
    inputs = image_input(client, digit)
    assert client.infer("lenet5", inputs).as_numpy("label").shape == (1, 5)
    result = client.infer("lenet5", inputs, parameters={"top_k": 10**12})
    assert result.as_numpy("label").shape == (1, 10)


def test_the_answer_tells_where_it_comes_from(client: Any, digit: bytes, first_answer: Any) -> None:
    result = client.infer("lenet5", image_input(client, digit), request_id="mine")
    response = result.get_response()
    if kind_of(client) is tritonclient.grpc:
        parameters = {name: value.string_param for name, value in response.parameters.items()}
        answered = (response.id, response.model_name, response.model_version, parameters)
    else:
        parameters = response["parameters"]
        answered = (response["id"], response["model_name"], response["model_version"], parameters)
    served = first_answer["served"]
    facts = {"manifest_digest": served["manifest_digest"], "weights": "digits"}
    assert answered == ("mine", "lenet5", "1", facts)


def test_a_version_can_be_named(client: Any, digit: bytes) -> None:
    inputs = image_input(client, digit)
    assert client.infer("lenet5", inputs, model_version="1").as_numpy("index")[0, 0] == 7
    with pytest.raises(InferenceServerException, match="no version '9'"):
        client.infer("lenet5", inputs, model_version="9")


def test_what_other_servers_clients_send_along_is_passed_over(client: Any, digit: bytes) -> None:
    result = client.infer(
        "lenet5", image_input(client, digit), sequence_id=7, sequence_start=True, priority=1
    )
    assert result.as_numpy("index")[0, 0] == 7


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_read_over_http_alone(
    client: Any, digit: bytes, algorithm: str
) -> None:
    """gRPC would inflate a message before it knows whose it is."""
    inputs = image_input(client, digit)
    if kind_of(client) is tritonclient.http:
        result = client.infer("lenet5", inputs, request_compression_algorithm=algorithm)
        assert result.as_numpy("index")[0, 0] == 7
    else:
        with pytest.raises(InferenceServerException, match=f"'{algorithm}' is disabled") as failure:
            client.infer("lenet5", inputs, compression_algorithm=algorithm)
        assert failure.value.status() == "StatusCode.UNIMPLEMENTED"


def test_a_bad_image_fails_its_batch_and_is_named(client: Any, digit: bytes) -> None:
    with pytest.raises(InferenceServerException, match="image 1: ") as failure:
        client.infer("lenet5", image_input(client, digit, b"no picture"))
    assert failure.value.status() in ("415", "StatusCode.INVALID_ARGUMENT")


def test_what_is_wrong_with_all_images_names_none(client: Any, digit: bytes) -> None:
    with pytest.raises(InferenceServerException) as failure:
        client.infer("lenet4", image_input(client, digit, digit))
    assert failure.value.message().startswith("no model is named 'lenet4'")


def test_an_unknown_model_is_answered_with_the_nearest(client: Any, digit: bytes) -> None:
    for ask in (
        lambda: client.infer("lenet4", image_input(client, digit)),
        lambda: client.get_model_metadata("lenet4"),
        lambda: client.get_model_config("lenet4"),
        lambda: client.get_inference_statistics("lenet4"),
    ):
        with pytest.raises(InferenceServerException, match="nearest: lenet5") as failure:
            ask()
        assert failure.value.status() in ("404", "StatusCode.NOT_FOUND")


def test_the_timeout_of_a_request_is_its_deadline(client: Any, digit: bytes) -> None:
    with pytest.raises(InferenceServerException, match=r"no answer within 0\.002 s") as failure:
        client.infer("lenet5", image_input(client, digit), timeout=2_000)  # microseconds
    assert failure.value.status() in ("504", "StatusCode.DEADLINE_EXCEEDED")


def test_refusals_are_counted_and_logged(lenet_gateway: Gateway, client: Any, digit: bytes) -> None:
    wire = "http" if kind_of(client) is tritonclient.http else "grpc"

    def counted() -> float:
        labels = f'{{door="{wire}",model="lenet5",reason="MALFORMED_REQUEST"}}'
        text = httpx.get(f"{lenet_gateway.admin}/metrics").text
        match = re.search(rf"^convoy_requests_total{re.escape(labels)} (\S+)", text, re.MULTILINE)
        return float(match[1]) if match else 0.0

    before = counted()
    with pytest.raises(InferenceServerException):
        client.infer("lenet5", image_input(client, digit), parameters={"topk": 3})
    assert counted() == before + 1
    assert "the request has the unknown parameter 'topk'" in lenet_gateway.log()
