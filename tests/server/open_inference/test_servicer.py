"""The protocol over gRPC: typed contents, streams, reflection, status details."""

from __future__ import annotations

import hashlib
import queue
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.server.open_inference.clients import (
    Gateway,
    check_seven,
    image_input,
)
from tests.server.rpc_errors import rpc_details


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


def test_a_stream_answers_in_order_and_outlives_a_bad_image(over_grpc: Any, digit: bytes) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    over_grpc.start_stream(lambda result, error: answers.put((result, error)))
    for name, image in (("a", digit), ("b", b"no picture"), ("c", digit)):
        over_grpc.async_stream_infer("lenet5", image_input(over_grpc, image), request_id=name)
    results = [answers.get(timeout=30) for _ in range(3)]
    over_grpc.stop_stream()
    assert [result.get_response().id for result, error in results if not error] == ["a", "c"]
    assert "image" in str(results[1][1])


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


def test_the_grpc_door_lists_the_service(lenet_gateway: Gateway) -> None:
    with grpc.insecure_channel(lenet_gateway.grpc) as channel:
        services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert "inference.GRPCInferenceService" in services


def test_grpc_errors_carry_the_reason(lenet_gateway: Gateway, digit: bytes) -> None:
    request = service_pb2.ModelInferRequest(model_name="lenet5")
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(struct.pack("<I", 4) + b"none")
    with grpc.insecure_channel(lenet_gateway.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as failure:
            stub.ModelInfer(request)
    assert b"IMAGE_FORMAT_UNSUPPORTED" in rpc_details(failure.value)[0].value
