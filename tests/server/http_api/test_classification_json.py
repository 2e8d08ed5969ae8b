"""An answer in JSON is what protobuf's own writer would write."""

from __future__ import annotations

import random
import struct

import orjson
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from convoy.v1 import classifier_pb2 as pb
from server.http_api.classification_json import response_to_dict
from server.http_api.json_response import JsonResponse

MESSAGES = 200


def random_value(kind: int, rng: random.Random) -> object:
    if kind == FieldDescriptor.TYPE_STRING:
        return "".join(rng.choices('aä"\\\n\U0001f600', k=rng.randrange(4)))
    if kind == FieldDescriptor.TYPE_INT32:
        return rng.choice((0, 1, -1, 2**31 - 1, rng.randrange(10**6)))
    if kind == FieldDescriptor.TYPE_BYTES:
        return rng.randbytes(rng.randrange(4))
    if kind == FieldDescriptor.TYPE_ENUM:
        return rng.randrange(3)
    if kind == FieldDescriptor.TYPE_DOUBLE:
        return rng.random()
    return random_score(rng) if kind == FieldDescriptor.TYPE_FLOAT else rng.random() < 0.5


def random_score(rng: random.Random) -> float:
    """0, a usual one, or any bits from the smallest normal number on."""
    bits: float = struct.unpack("f", struct.pack("I", rng.randrange(0x0080_0000, 0x3F80_0001)))[0]
    return rng.choice((0.0, 1.0, rng.random(), rng.random() * 1e-6, bits))


def fill(message: Message, rng: random.Random) -> None:
    """Each field, or not."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.3:
            continue
        if field.is_repeated and not field.message_type:
            values = [random_value(field.type, rng) for _ in range(rng.randrange(4))]
            getattr(message, field.name).extend(values)
        elif field.is_repeated:
            for _ in range(rng.randrange(4)):
                fill(getattr(message, field.name).add(), rng)
        elif field.message_type:
            getattr(message, field.name).SetInParent()
            fill(getattr(message, field.name), rng)
        else:
            setattr(message, field.name, random_value(field.type, rng))


@pytest.mark.parametrize("seed", range(3))
def test_random_answers_are_written_as_protobuf_writes_them(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(MESSAGES):
        response = pb.ClassifyResponse()
        fill(response, rng)
        assert orjson.loads(
            JsonResponse(response_to_dict(response)).body
        ) == json_format.MessageToDict(
            response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
