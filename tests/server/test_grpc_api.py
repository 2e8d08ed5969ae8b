"""The gRPC door, over the wire, with a plain stub."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status

from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc


class Gateway(Protocol):
    grpc: str


@pytest.fixture
def channel(lenet_gateway: Gateway) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(
        lenet_gateway.grpc, options=[("grpc.max_send_message_length", -1)]
    ) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> Any:
    return classifier_pb2_grpc.ImageClassifierStub(channel)  # type: ignore[no-untyped-call]


def request_of(content: bytes, **fields: Any) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(**{"model": "lenet5", "image": pb.Image(content=content), **fields})


def test_a_digit_is_classified(stub: Any, digit: bytes) -> None:
    answer = stub.Classify(request_of(digit))
    assert answer.classes[0].label == "7"
    assert sum(found.score for found in answer.classes) <= 1.0 + 1e-6
    assert len(answer.classes) == 5
    assert answer.request_id


def test_errors_carry_code_reason_and_details(stub: Any, digit: bytes) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        stub.Classify(request_of(digit, model="lenet4"))
    error = failure.value
    assert error.code() is grpc.StatusCode.NOT_FOUND
    info, resource = error_details_pb2.ErrorInfo(), error_details_pb2.ResourceInfo()
    details = rpc_status.from_call(error).details
    assert details[0].Unpack(info) and details[1].Unpack(resource)
    assert (info.reason, info.domain, info.metadata["model"]) == (
        "MODEL_NOT_FOUND",
        "convoy.v1",
        "lenet4",
    )
    assert resource.resource_name == "lenet4"


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"model": ""}, "INVALID_ARGUMENT", "MALFORMED_REQUEST"),
        ({"image": None}, "INVALID_ARGUMENT", "MALFORMED_REQUEST"),
        ({"top_k": 0}, "INVALID_ARGUMENT", "MALFORMED_REQUEST"),
        ({"image": pb.Image(content=b"")}, "INVALID_ARGUMENT", "IMAGE_DECODE_FAILED"),
        ({"image": pb.Image(content=b"hello")}, "INVALID_ARGUMENT", "IMAGE_FORMAT_UNSUPPORTED"),
        ({"image": pb.Image(content=bytes(17 << 20))}, "INVALID_ARGUMENT", "IMAGE_TOO_LARGE"),
        ({"image": pb.Image(content=bytes((32 << 20) + 1))}, "INVALID_ARGUMENT", "IMAGE_TOO_LARGE"),
        ({"version": "8"}, "NOT_FOUND", "VERSION_NOT_FOUND"),
    ],
    ids=[
        "no model",
        "no image",
        "top_k 0",
        "empty",
        "text",
        "image too large",
        "request too large",
        "version",
    ],
)
def test_bad_requests_are_named(
    stub: Any, digit: bytes, fields: dict[str, Any], code: str, reason: str
) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        stub.Classify(request_of(digit, **fields))
    info = error_details_pb2.ErrorInfo()
    assert failure.value.code().name == code
    assert rpc_status.from_call(failure.value).details[0].Unpack(info)
    assert info.reason == reason


def test_a_deadline_that_is_over_is_exceeded(stub: Any, digit: bytes) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        stub.Classify(request_of(digit), timeout=0.0001)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_models_are_listed_and_told(stub: Any) -> None:
    (listed,) = stub.ListModels(pb.ListModelsRequest()).models
    assert (listed.name, listed.state, len(listed.labels)) == ("lenet5", pb.STATE_READY, 0)
    told = stub.GetModel(pb.GetModelRequest(model="lenet5"))
    assert len(told.labels) == 10 and told.golden_images and told.parity
    with pytest.raises(grpc.RpcError) as failure:
        stub.GetModel(pb.GetModelRequest(model="lenet6"))
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND


def test_health_is_told_of_the_server_and_the_service(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ("", "convoy.v1.ImageClassifier"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_the_services(channel: grpc.Channel) -> None:
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert {"convoy.v1.ImageClassifier", "grpc.health.v1.Health"} <= set(services)
