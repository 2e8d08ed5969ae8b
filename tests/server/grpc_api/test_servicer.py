"""The gRPC door, over the wire, with a plain stub."""

from __future__ import annotations

import itertools
import queue
import re
import time
from collections.abc import Iterator
from typing import Any, Protocol

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc
from tests.server.rpc_errors import rpc_details


class Gateway(Protocol):
    grpc: str
    admin: str


@pytest.fixture
def channel(lenet_gateway: Gateway) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(
        lenet_gateway.grpc, options=[("grpc.max_send_message_length", -1)]
    ) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> Any:
    return classifier_pb2_grpc.ImageClassifierStub(channel)


def request_of(content: bytes, **fields: Any) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(**{"model": "lenet5", "image": pb.Image(content=content), **fields})


def test_a_digit_is_classified(stub: Any, digit: bytes) -> None:
    answer = stub.Classify(request_of(digit))
    assert answer.classes[0].label == "7"
    assert sum(class_.score for class_ in answer.classes) <= 1.0 + 1e-6
    assert len(answer.classes) == 5
    assert answer.request_id


def test_errors_carry_code_reason_and_details(stub: Any, digit: bytes) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        stub.Classify(request_of(digit, model="lenet4"))
    error = failure.value
    assert error.code() is grpc.StatusCode.NOT_FOUND
    info, resource = error_details_pb2.ErrorInfo(), error_details_pb2.ResourceInfo()
    details = rpc_details(error)
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
    assert rpc_details(failure.value)[0].Unpack(info)
    assert info.reason == reason


def test_a_deadline_that_is_over_is_exceeded(stub: Any, digit: bytes) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        stub.Classify(request_of(digit), timeout=0.0001)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_models_are_listed_and_told(stub: Any) -> None:
    (listed,) = stub.ListModels(pb.ListModelsRequest()).models
    assert (listed.name, listed.state, len(listed.labels)) == ("lenet5", pb.STATE_READY, 0)
    model = stub.GetModel(pb.GetModelRequest(model="lenet5"))
    assert len(model.labels) == 10 and model.golden_images and model.parity
    with pytest.raises(grpc.RpcError) as failure:
        stub.GetModel(pb.GetModelRequest(model="lenet6"))
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_client_with_more_calls_than_streams_waits(stub: Any, digit: bytes) -> None:
    calls = [stub.Classify.future(request_of(digit)) for _ in range(150)]
    assert {call.result().classes[0].label for call in calls} == {"7"}


def test_health_is_told_of_the_server_and_the_service(channel: grpc.Channel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    for name in ("", "convoy.v1.ImageClassifier"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_the_services(channel: grpc.Channel) -> None:
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert {"convoy.v1.ImageClassifier", "grpc.health.v1.Health"} <= set(services)


# ---------------------------------------------------------------- several images in one call


def reason_of(error: Any) -> str:
    info = error_details_pb2.ErrorInfo()
    assert error.details[0].Unpack(info)
    return str(info.reason)


def test_a_batch_answers_each_in_its_place(stub: Any, digit: bytes) -> None:
    requests = [
        request_of(digit, request_id="first", top_k=1),
        request_of(b"hello"),
        request_of(digit, model="lenet4"),
        request_of(digit, top_k=0),
        request_of(digit, request_id="x" * 129),
        request_of(digit, version="1"),
    ]
    results = stub.BatchClassify(pb.BatchClassifyRequest(requests=requests)).results
    assert [result.WhichOneof("result") for result in results] == [
        "response",
        "error",
        "error",
        "error",
        "error",
        "response",
    ]
    assert results[0].request_id == results[0].response.request_id == "first"
    assert [class_.label for class_ in results[0].response.classes] == ["7"]
    assert len(results[5].response.classes) == 5
    assert [reason_of(result.error) for result in results[1:5]] == [
        "IMAGE_FORMAT_UNSUPPORTED",
        "MODEL_NOT_FOUND",
        "MALFORMED_REQUEST",
        "MALFORMED_REQUEST",
    ]
    assert [result.error.code for result in results[1:5]] == [3, 5, 3, 3]
    assert all(result.request_id for result in results)


def test_the_images_of_a_batch_go_through_the_network_together(stub: Any, digit: bytes) -> None:
    requests = [request_of(digit) for _ in range(8)]
    results = stub.BatchClassify(pb.BatchClassifyRequest(requests=requests)).results
    assert {result.response.served.batch_size for result in results} == {8}


@pytest.mark.parametrize(
    ("count", "message"),
    [(0, "the batch has 0 requests"), (65, "requests has more than 64 items, the limit")],
)
def test_a_batch_without_requests_or_with_too_many_is_malformed(
    stub: Any, digit: bytes, count: int, message: str
) -> None:
    requests = [request_of(digit) for _ in range(count)]
    with pytest.raises(grpc.RpcError, match=message) as failure:
        stub.BatchClassify(pb.BatchClassifyRequest(requests=requests))
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_stream_is_answered_in_its_order(stub: Any, digit: bytes) -> None:
    contents = [digit, b"hello", digit] * 20
    requests = (
        request_of(content, request_id=str(number)) for number, content in enumerate(contents)
    )
    results = list(stub.StreamClassify(requests))
    assert [result.request_id for result in results] == [str(n) for n in range(60)]
    answers = [result.WhichOneof("result") for result in results]
    assert answers == ["response", "error", "response"] * 20
    assert results[0].response.classes[0].label == "7"


def test_a_stream_answers_before_it_ends(stub: Any, digit: bytes) -> None:
    """A conversation: the next request is made of the last answer."""
    requests: queue.SimpleQueue[pb.ClassifyRequest | None] = queue.SimpleQueue()
    results = stub.StreamClassify(iter(requests.get, None))
    for number in range(3):
        requests.put(request_of(digit, request_id=str(number)))
        assert next(results).request_id == str(number)
    requests.put(None)
    assert list(results) == []


def test_a_stream_that_is_left_is_given_up(stub: Any, digit: bytes, lenet_gateway: Gateway) -> None:
    results = stub.StreamClassify(request_of(digit) for _ in itertools.count())
    next(results)
    results.cancel()
    deadline_s = time.monotonic() + 10
    while held(lenet_gateway):
        assert time.monotonic() < deadline_s, "requests of a cancelled stream are held"
        time.sleep(0.05)


def held(gateway: Gateway) -> float:
    text = httpx.get(f"{gateway.admin}/metrics").text
    match = re.search(r"^convoy_in_flight (\S+)", text, re.MULTILINE)
    assert match
    return float(match[1])
