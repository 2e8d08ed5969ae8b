"""The Open Inference Protocol on both wires, spoken by the clients that others wrote for it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import queue
import re
import shutil
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from filelock import FileLock
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.server.http_api.test_endpoints import logged

# The last release of NVIDIA's clients whose perf_analyzer runs on Debian 12: x86-64, then aarch64.
PERF_ANALYZER = """\
tritonclient==2.51.0 \\
    --hash=sha256:c485bb0123bdf310f90bc8b03d3489b28df2ffed55b30c7eee0b795b48113d52 \\
    --hash=sha256:ee6f5a508409f6c95069f4d77d34e97bef84fb4a1aedb5d82ad0ad311ad128d5
"""

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "open-inference.md").read_text(encoding="utf-8")


class Gateway(Protocol):
    http: str
    grpc: str
    operator: str

    def log(self) -> str: ...


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


def kind_of(client: Any) -> Any:
    """The module of the client, which has the classes of its inputs and outputs."""
    is_http = "http" in type(client).__module__
    return tritonclient.http if is_http else tritonclient.grpc


def image_input(client: Any, *images: bytes, shape: tuple[int, ...] | None = None) -> list[Any]:
    pixels = np.array(images, np.object_).reshape(shape or (len(images), 1))
    tensor = kind_of(client).InferInput("image", pixels.shape, "BYTES")
    tensor.set_data_from_numpy(pixels)
    return [tensor]


@pytest.fixture(scope="session")
def first_answer(lenet_gateway: Gateway, digit: bytes) -> Any:
    """What our own API says of the seven."""
    url = f"{lenet_gateway.http}/v1/models/lenet5:classify"
    return httpx.post(url, params={"top_k": 3}, content=digit).json()


def check_seven(result: Any, expected: Any, n: int = 1) -> None:
    """Each row of the result is what our own API says."""
    columns = {"label": str.encode, "score": np.float32, "index": np.int32}
    for name, kind in columns.items():
        row = [kind(found[name]) for found in expected["classes"]]
        assert result.as_numpy(name).tolist() == [np.array(row).tolist()] * n, name


# ---------------------------------------------------------------- inference


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
        found = (response.id, response.model_name, response.model_version, parameters)
    else:
        parameters = response["parameters"]
        found = (response["id"], response["model_name"], response["model_version"], parameters)
    served = first_answer["served"]
    facts = {"manifest_digest": served["manifest_digest"], "weights": "digits"}
    assert found == ("mine", "lenet5", "1", facts)


def test_only_the_outputs_that_are_asked_for_are_answered(client: Any, digit: bytes) -> None:
    outputs = [kind_of(client).InferRequestedOutput(name) for name in ("index", "label")]
    result = client.infer("lenet5", image_input(client, digit), outputs=outputs)
    assert result.as_numpy("index")[0, 0] == 7
    assert result.as_numpy("label")[0, 0] == b"7"
    assert result.as_numpy("score") is None


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


def test_the_grpc_door_reads_typed_contents_as_well(
    lenet_gateway: Gateway, digit: bytes, first_answer: Any
) -> None:
    """As clients generated from the protocol's own .proto send them."""
    request = service_pb2.ModelInferRequest(model_name="lenet5")
    tensor = request.inputs.add(name="image", datatype="BYTES", shape=[2])
    tensor.contents.bytes_contents.extend([digit, digit])
    request.parameters["top_k"].int64_param = 3
    with grpc.insecure_channel(lenet_gateway.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        check_seven(tritonclient.grpc.InferResult(stub.ModelInfer(request)), first_answer, n=2)


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
                row = [found[output["name"]] for found in first_answer["classes"]]
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


def test_a_raw_binary_request_is_one_image_and_nothing_else(url: str, digit: bytes) -> None:
    headers = {"inference-header-content-length": "0", "x-request-id": "mine"}
    answer = httpx.post(f"{url}/infer", content=digit, headers=headers).json()
    assert (answer["id"], answer["outputs"][0]["data"][0]) == ("mine", "7")


def test_an_answer_says_the_id_that_is_in_the_log(
    lenet_gateway: Gateway, url: str, digit: bytes
) -> None:
    raw = {"inference-header-content-length": "0"}
    unnamed = httpx.post(f"{url}/infer", content=digit, headers=raw)
    assert "id" not in unnamed.json(), "only what was given is repeated in the body"
    refused = httpx.post(f"{url}/infer", content=b"no image", headers=raw)
    given = httpx.post(f"{url}/infer", json={**an_input(), "id": "in-the-body"})
    assert given.headers["x-request-id"] == "in-the-body"
    endless = httpx.post(f"{url}/infer", json={**an_input(), "id": "x" * 200})
    assert endless.status_code == 400 and "request_id" in endless.json()["error"]
    assert len(endless.headers["x-request-id"]) < 200
    in_log = {line.get("request_id") for line in logged(lenet_gateway)}
    for answer in (unnamed, refused, given, endless):
        assert answer.headers["x-request-id"] in in_log


def test_what_nobody_waits_for_any_more_is_given_up(
    lenet_gateway: Any, url: str, digit: bytes
) -> None:
    images = [base64.b64encode(digit).decode()] * 64
    request = {**an_input(shape=[64], data=images), "id": "gone"}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/infer", json=request, timeout=httpx.Timeout(5, read=0.3))

    def outcomes() -> list[str]:
        lines = logged(lenet_gateway)
        return [line["outcome"] for line in lines if line.get("request_id") == "gone"]

    lenet_gateway.wait_for(lambda: len(outcomes()) == 64)
    assert "CANCELLED" in outcomes()
    assert outcomes().count("OK") < 32, "the runner was not asked for most of them"


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_read(client: Any, digit: bytes, algorithm: str) -> None:
    if kind_of(client) is tritonclient.http:
        options = {"request_compression_algorithm": algorithm}
    else:
        options = {"compression_algorithm": algorithm}
    result = client.infer("lenet5", image_input(client, digit), **options)
    assert result.as_numpy("index")[0, 0] == 7


def test_a_stream_answers_in_order_and_outlives_a_bad_image(over_grpc: Any, digit: bytes) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    over_grpc.start_stream(lambda result, error: answers.put((result, error)))
    for name, image in (("a", digit), ("b", b"no picture"), ("c", digit)):
        over_grpc.async_stream_infer("lenet5", image_input(over_grpc, image), request_id=name)
    found = [answers.get(timeout=30) for _ in range(3)]
    over_grpc.stop_stream()
    assert [result.get_response().id for result, error in found if not error] == ["a", "c"]
    assert "image" in str(found[1][1])


def test_each_request_of_a_stream_is_charged(
    serve: Callable[..., Any], repository: Path, tmp_path: Path, digit: bytes
) -> None:
    """A key that may ask three times at once may not ask ten times through one stream."""
    keys_path = tmp_path / "keys.toml"
    sha256 = hashlib.sha256(b"secret").hexdigest()
    keys_path.write_text(f'[alice]\nsha256 = "{sha256}"\nrequests_per_s = 0.001\nburst = 3\n')
    gateway = serve(f"--repository={repository}", f"--api-keys={keys_path}")
    gateway.wait_until_ready()
    answers: queue.Queue[Any] = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(gateway.grpc) as client:
        headers = {"authorization": "Bearer secret"}
        client.start_stream(lambda result, error: answers.put(error), headers=headers)
        for _ in range(10):
            client.async_stream_infer("lenet5", image_input(client, digit))
        errors = [str(answers.get(timeout=30)) for _ in range(10)]
        client.stop_stream()
    assert errors[:2] == ["None", "None"]
    assert all("alice may send" in error for error in errors[2:])


# ---------------------------------------------------------------- health and facts


def test_health_follows_readiness(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("lenet5")
    assert client.is_model_ready("lenet5", "1")
    assert not client.is_model_ready("lenet5", "2")
    assert not client.is_model_ready("vgg16")


def as_json(client: Any) -> dict[str, bool]:
    """gRPC's client gives messages unless told otherwise."""
    return {"as_json": True} if kind_of(client) is tritonclient.grpc else {}


def whole(found: Any) -> Any:
    """protobuf's JSON has 64-bit integers as text."""
    return json.loads(json.dumps(found), parse_int=str)


def test_the_model_describes_itself(client: Any) -> None:
    server = client.get_server_metadata(**as_json(client))
    assert server["name"] == "convoy" and "binary_tensor_data" in server["extensions"]
    metadata = whole(client.get_model_metadata("lenet5", **as_json(client)))
    assert (metadata["name"], metadata["versions"]) == ("lenet5", ["1"])
    assert metadata["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": ["-1", "1"]}]
    assert [(each["name"], each["datatype"]) for each in metadata["outputs"]] == [
        ("label", "BYTES"),
        ("score", "FP32"),
        ("index", "INT32"),
    ]
    config = client.get_model_config("lenet5", **as_json(client))
    config = whole(config.get("config", config))
    assert (config["max_batch_size"], config["input"][0]["dims"]) in (("64", ["1"]), (64, ["1"]))


def test_the_grpc_door_lists_the_service(lenet_gateway: Gateway) -> None:
    with grpc.insecure_channel(lenet_gateway.grpc) as channel:
        services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert "inference.GRPCInferenceService" in services


def test_statistics_count_images_and_failures(client: Any, digit: bytes) -> None:
    def counted() -> dict[str, int]:
        found = client.get_inference_statistics("lenet5", "1", **as_json(client))
        (stats,) = found["model_stats"]
        inference = stats["inference_stats"]
        return {
            "images": int(stats.get("inference_count", 0)),
            "success": int(inference.get("success", {}).get("count", 0)),
            "fail": int(inference.get("fail", {}).get("count", 0)),
            "ns": int(inference.get("compute_input", {}).get("ns", 0)),
        }

    before = counted()
    client.infer("lenet5", image_input(client, digit, digit))
    with pytest.raises(InferenceServerException):
        client.infer("lenet5", image_input(client, b"no picture"))
    grown = {name: count - before[name] for name, count in counted().items()}
    assert grown.pop("ns") > 100_000, "preparing a digit takes milliseconds"
    assert grown == {"images": 2, "success": 1, "fail": 1}
    everything = client.get_inference_statistics(**as_json(client))
    assert [stats["name"] for stats in everything["model_stats"]] == ["lenet5"]


def test_the_repository_can_be_read_and_not_changed(client: Any) -> None:
    index = client.get_model_repository_index(**as_json(client))
    (model,) = index if isinstance(index, list) else index["models"]
    assert (model["name"], model["version"], model["state"]) == ("lenet5", "1", "READY")
    for change in (client.load_model, client.unload_model):
        with pytest.raises(
            InferenceServerException, match="neither loaded nor unloaded"
        ) as refusal:
            change("lenet5")
        assert refusal.value.status() in ("404", "StatusCode.UNIMPLEMENTED")
    assert client.is_model_ready("lenet5")


def test_what_is_the_operators_is_refused_with_a_reason(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="shared memory is not supported"):
        client.register_system_shared_memory("images", "/images", 1 << 20)
    with pytest.raises(InferenceServerException, match="shared memory is not supported"):
        client.get_cuda_shared_memory_status()
    with pytest.raises(InferenceServerException, match="the operator's"):
        client.update_log_settings({"log_verbose_level": 1})
    with pytest.raises(InferenceServerException, match="the operator's"):
        client.get_trace_settings("lenet5")


# ---------------------------------------------------------------- errors


def test_a_bad_image_fails_its_batch_and_is_named(client: Any, digit: bytes) -> None:
    with pytest.raises(InferenceServerException, match="image 1: ") as failure:
        client.infer("lenet5", image_input(client, digit, b"no picture"))
    assert failure.value.status() in ("415", "StatusCode.INVALID_ARGUMENT")


def test_what_is_wrong_with_all_images_names_none(client: Any, digit: bytes) -> None:
    with pytest.raises(InferenceServerException) as failure:
        client.infer("lenet4", image_input(client, digit, digit))
    assert failure.value.message().startswith("no model is named 'lenet4'")


def test_a_large_batch_is_refused(client: Any, digit: bytes) -> None:
    with pytest.raises(InferenceServerException, match="where N is 1 to 64"):
        client.infer("lenet5", image_input(client, *[digit] * 65))


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


def an_input(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": ["AAAA"]}
    return {"inputs": [{**tensor, **changes}]}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (b"{", "no inference request"),
        (b"[" * 9999, "no inference request"),
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
        (an_input(parameters={"binary_data_size": 8}), "0 bytes are there"),
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
        (None, b"\x05", "no inference request"),
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


def test_what_is_left_over_behind_the_inputs_is_an_error(url: str, digit: bytes) -> None:
    raw = struct.pack("<I", len(digit)) + digit
    text = json.dumps(an_input(data=None, parameters={"binary_data_size": len(raw)})).encode()
    headers = {"inference-header-content-length": str(len(text))}
    assert httpx.post(f"{url}/infer", content=text + raw, headers=headers).is_success
    response = httpx.post(f"{url}/infer", content=text + raw + b"!", headers=headers)
    assert response.status_code == 400 and "1 bytes are left over" in response.json()["error"]


@pytest.mark.parametrize(
    ("encoding", "content", "said"),
    [
        ("br", b"x", "must be gzip or deflate"),
        ("gzip", b"no gzip", "cannot be inflated"),
        ("gzip", gzip.compress(b"x" * 1000)[:-9], "it is cut off"),
        ("deflate", zlib.compress(bytes(64 << 20)), f"the body has {33 << 20} or more bytes"),
    ],
    ids=["brotli", "broken", "cut off", "bomb"],
)
def test_bodies_that_cannot_be_inflated_are_named(
    url: str, encoding: str, content: bytes, said: str
) -> None:
    headers = {"content-encoding": encoding, "inference-header-content-length": "0"}
    response = httpx.post(f"{url}/infer", content=content, headers=headers)
    assert response.status_code == (413 if "more bytes" in said else 400)
    assert said in response.json()["error"]


def test_refusals_are_counted_and_logged(lenet_gateway: Gateway, client: Any, digit: bytes) -> None:
    wire = "http" if kind_of(client) is tritonclient.http else "grpc"

    def counted() -> float:
        labels = f'{{door="{wire}",model="lenet5",reason="MALFORMED_REQUEST"}}'
        text = httpx.get(f"{lenet_gateway.operator}/metrics").text
        found = re.search(rf"^convoy_requests_total{re.escape(labels)} (\S+)", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    before = counted()
    with pytest.raises(InferenceServerException):
        client.infer("lenet5", image_input(client, digit), parameters={"topk": 3})
    assert counted() == before + 1
    assert "the request has the parameter 'topk'" in lenet_gateway.log()


def test_a_client_that_goes_away_is_no_fault_of_the_gateway(
    lenet_gateway: Gateway, url: str, digit: bytes
) -> None:
    faults = lenet_gateway.log().count("a fault of the gateway")
    host, _, port = lenet_gateway.http.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port))) as half_said:
        half_said.sendall(b"POST /v2/models/lenet5/infer HTTP/1.1\r\nhost: x\r\n")
        half_said.sendall(b"content-length: 1000\r\n\r\n{")
    headers = {"inference-header-content-length": "0"}
    assert httpx.post(f"{url}/infer", content=digit, headers=headers).is_success
    assert lenet_gateway.log().count("a fault of the gateway") == faults


def test_grpc_errors_carry_the_reason(lenet_gateway: Gateway, digit: bytes) -> None:
    request = service_pb2.ModelInferRequest(model_name="lenet5")
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(struct.pack("<I", 4) + b"none")
    with grpc.insecure_channel(lenet_gateway.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as failure:
            stub.ModelInfer(request)
    details = dict(failure.value.trailing_metadata())
    assert b"IMAGE_FORMAT_UNSUPPORTED" in details["grpc-status-details-bin"]


def test_a_kept_connection_is_answered_at_once(lenet_gateway: Gateway) -> None:
    """Head and body of an answer are two packets: Nagle's algorithm would hold the second 40 ms."""
    with httpx.Client(base_url=lenet_gateway.http) as client:
        taken_s = [client.get("/v2/health/live").elapsed.total_seconds() for _ in range(20)]
    assert min(taken_s[5:]) < 0.03


# ---------------------------------------------------------------- the page


EXAMPLES = [
    (language, code)
    for language, code in re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
    if ":8080" in code
]


@pytest.mark.parametrize(("language", "code"), EXAMPLES)
def test_the_examples_of_the_page_work(lenet_gateway: Gateway, language: str, code: str) -> None:
    code = code.replace("127.0.0.1:8080", lenet_gateway.http.removeprefix("http://"))
    command = [sys.executable, "-c", code] if language == "python" else ["bash", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search("""["']7["']""", done.stdout)


# ---------------------------------------------------------------- perf_analyzer


@pytest.fixture(scope="session")
def perf_analyzer(
    tritonserver: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., str]:
    """NVIDIA's load generator, installed once a machine; what it says when it is run."""
    folder = Path(os.environ["CONVOY_CACHE"]) / "perf_analyzer-2_51"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            install_perf_analyzer(folder)
    libraries = tmp_path_factory.mktemp("libraries")
    # It lacks two libraries, of which the server's wheel has copies under names of their own.
    for name in ("libb64.so.0d", "libcudart.so.12"):
        stem = name.partition(".")[0]
        (copy,) = tritonserver.parents[1].glob(f"nvidia_pytriton.libs/{stem}-*")
        (libraries / name).symlink_to(copy)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [folder / "bin" / "perf_analyzer", *arguments],
            env={**os.environ, "LD_LIBRARY_PATH": str(libraries)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def install_perf_analyzer(folder: Path) -> None:
    staging = folder.with_suffix(".staging")
    shutil.rmtree(staging, ignore_errors=True)
    requirement_path = folder.with_suffix(".txt")
    requirement_path.write_text(PERF_ANALYZER)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    command += ["--require-hashes", "--only-binary", ":all:", "--target", str(staging)]
    if subprocess.run([*command, "-r", str(requirement_path)], check=False).returncode:
        pytest.skip("needs the wheel tritonclient 2.51.0, which pip could not install")
    staging.rename(folder)


@pytest.mark.parametrize(
    "options",
    [["-i", "http"], ["-i", "grpc", "-b", "2"], ["-i", "grpc", "--streaming"]],
    ids=["http", "grpc", "stream"],
)
def test_perf_analyzer_measures_the_gateway(
    lenet_gateway: Gateway,
    perf_analyzer: Callable[..., str],
    digit: bytes,
    tmp_path: Path,
    options: list[str],
) -> None:
    """It reads the metadata, the configuration and the statistics, and then sends its requests."""
    element = struct.pack("<I", len(digit)) + digit
    data = {"data": [{"image": {"b64": base64.b64encode(element).decode()}}]}
    (tmp_path / "digit.json").write_text(json.dumps(data))
    is_http = "http" in options
    address = lenet_gateway.http.removeprefix("http://") if is_http else lenet_gateway.grpc
    said = perf_analyzer(
        *("-m", "lenet5", "-u", address, *options),
        *("--input-data", str(tmp_path / "digit.json"), "--request-count", "10"),
    )
    images = 20 if "-b" in options else 10
    assert "Request count: 10" in said
    assert f"Inference count: {images}" in said
    assert "Successful request count: 10" in said
