"""Raw messages are bounded before they are parsed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2

from bench.messages import CONVOY, HTTP, JSON, OPEN_INFERENCE, OTHERS, Worst, parts
from convoy.v1 import classifier_pb2 as pb
from server.core.admission import Admission
from server.core.bounds import (
    MAX_CHARACTERS,
    MAX_UNKNOWN_BYTES,
    Bounds,
    check_json,
    check_message,
)
from server.core.call import Call
from server.errors import ImageTooLarge, MalformedRequest, Overloaded

BOUNDS = Bounds.for_batches(64)
WAVE = "👋"


def call_with(max_bytes: int = 1 << 20, max_in_flight_bytes: int = 1 << 20) -> Call:
    admission = Admission(1, max_in_flight_bytes)
    return Call("grpc", "/", admission.reserve(max_bytes), BOUNDS)


class Unparsed:
    """A kind of message that must not be parsed."""

    def __init__(self, kind: type[Message]) -> None:
        self.DESCRIPTOR = kind.DESCRIPTOR

    def FromString(self, raw: bytes) -> Message:  # noqa: N802
        raise AssertionError("it was parsed")


def kind_of(target: str) -> Any:
    """The kind of the messages that a method reads."""
    service, _, method = target[1:].partition("/")
    pool: Any = Default()
    return pool.FindServiceByName(service).methods_by_name[method].input_type._concrete_class


@pytest.mark.parametrize(
    "worst", [*CONVOY, *OTHERS, *OPEN_INFERENCE], ids=lambda worst: f"{worst.name}, {worst.target}"
)
def test_nothing_is_parsed_of_the_worst_messages(worst: Worst) -> None:
    unparsed: Any = Unparsed(kind_of(worst.target))
    with pytest.raises(MalformedRequest, match="the limit"):
        call_with().read(worst.build(), unparsed)


@pytest.mark.parametrize(
    "worst",
    [
        worst
        for worst in HTTP
        if worst.target.startswith("POST")
        and worst.build is not parts
        and "content-encoding" not in worst.headers
    ],
    ids=lambda worst: f"{worst.name}, {worst.target}",
)
def test_the_worst_json_is_refused_by_its_bytes(worst: Worst) -> None:
    with pytest.raises(MalformedRequest):
        check_json(worst.build(), "content" if worst.headers == JSON else "data", BOUNDS)


# ---------------------------------------------------------------- what is held


def test_all_bytes_of_a_message_are_held_until_the_call_ends() -> None:
    call = call_with(max_in_flight_bytes=100)
    call.hold(bytes(60))
    with pytest.raises(Overloaded):
        call.hold(bytes(60))
    call.reservation.release()
    call.hold(bytes(100))
    with pytest.raises(ImageTooLarge):
        call_with(max_bytes=10).hold(bytes(11))


# ---------------------------------------------------------------- protobuf


def check(message: Message) -> None:
    check_message(message.SerializeToString(), type(message), BOUNDS)


@pytest.mark.parametrize("name", ["model", "version", "request_id"])
@pytest.mark.parametrize("character", ["x", "é", WAVE])
def test_strings_are_bounded_in_characters(name: str, character: str) -> None:
    request = pb.ClassifyRequest()
    setattr(request, name, character * MAX_CHARACTERS)
    check(request)
    setattr(request, name, character * (MAX_CHARACTERS + 1))
    with pytest.raises(MalformedRequest, match=f"{name} has more than 256 characters"):
        check(request)


def test_lists_are_bounded_whether_they_are_packed_or_not() -> None:
    request = service_pb2.ModelInferRequest()
    tensor = request.inputs.add(shape=[1] * 64)
    check(request)
    tensor.shape.append(1)
    with pytest.raises(MalformedRequest, match="shape has more than 64 items"):
        check(request)
    unpacked = b"\x18\x01" * 65  # the tag of shape and a number, again and again
    raw = b"\x2a\x82\x01" + unpacked
    with pytest.raises(MalformedRequest, match="shape has more than 64 items"):
        check_message(raw, service_pb2.ModelInferRequest, BOUNDS)


def test_a_few_unknown_fields_are_ignored() -> None:
    known = pb.GetModelRequest(model="lenet5").SerializeToString()
    for size, is_valid in ((100, True), (MAX_UNKNOWN_BYTES, False)):
        unknown = pb.ClassifyRequest(image=pb.Image(content=bytes(size))).SerializeToString()
        if is_valid:
            assert call_with().read(known + unknown, pb.GetModelRequest).model == "lenet5"
        else:
            with pytest.raises(MalformedRequest, match="unknown fields"):
                check_message(known + unknown, pb.GetModelRequest, BOUNDS)


@pytest.mark.parametrize(
    "raw", [b"\x0a", b"\x0a\x05x", b"\x0b", b"\x80" * 11, b"\x1a\x02\x0a\x05", b"\x09\x00"]
)
def test_what_is_cut_off_or_in_no_wire_format_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedRequest, match="not a valid message"):
        check_message(raw, pb.ClassifyRequest, BOUNDS)


def test_a_batch_may_be_as_large_as_it_says() -> None:
    request = pb.ClassifyRequest(
        model="x" * 256,
        version="1",
        image=pb.Image(content=bytes(300)),
        top_k=5,
        min_score=0.5,
        request_id=WAVE * 128,
    )
    for count in (1, 64, 1000):
        batch = pb.BatchClassifyRequest(requests=[request] * count)
        check_message(batch.SerializeToString(), type(batch), Bounds.for_batches(count))


# ---------------------------------------------------------------- JSON


@pytest.mark.parametrize("indent", [None, 4])
def test_json_of_a_whole_batch_is_within_its_bounds(indent: int | None) -> None:
    request = {
        "image": {"content": "A" * 100_000},
        "model": "lenet5",
        "version": "1",
        "top_k": 5,
        "min_score": 0.5,
        "request_id": WAVE * 128,
    }
    for count in (1, 64, 500):
        body = json.dumps({"requests": [request] * count}, indent=indent).encode()
        check_json(body, "content", Bounds.for_batches(count))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"model": "' + "x" * 257 + '"}', "model has more than 256"),
        ('{"model": "' + '\\"' * 257 + '"}', "model has more than 256"),
        ('{"model": "' + "\\u00e9" * 257 + '"}', "model has more than 256"),
        ('{"content": 1, "' + "x" * 300 + '": 1}', "a name in the JSON"),
        ('{"content": "' + "x" * 300 + '\\""}', "content is not base64"),
        ("[" * 17, "16 levels"),
        ('{"a": [' + "1," * 64 + "1]}", "more than 64 items"),
        ('{"a": ' + "1" * 257 + "}", "256 digits"),
        ('""' * 10_001, "more than 10000 values"),
        (" " * 2_000_000, "too much"),
    ],
)
def test_json_is_bounded(body: str, said: str) -> None:
    with pytest.raises(MalformedRequest, match=said):
        check_json(body.encode(), "content", BOUNDS)


@pytest.mark.parametrize(
    "body",
    [
        '{"model": "' + "\\u00e9" * 256 + '"}',
        '{"model": "' + '\\"' * 256 + '"}',
        '{"content": "' + "\\/" * 9000 + 'A"}',
        '{"data": ["a\\\\", "b"], "model": "m"}',
        '{"model": "not finished',
        "]}]",
        "",
    ],
)
def test_what_is_within_the_bounds_is_left_to_the_parser(body: str) -> None:
    check_json(body.encode(), "content", BOUNDS)
