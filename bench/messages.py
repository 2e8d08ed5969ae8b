"""The worst message of each method of both wires, as a client may send it."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from tritonclient.grpc import service_pb2

from convoy.v1 import classifier_pb2 as pb

LONG = "x" * (15 << 20)  # nearly all that a request may have
MANY = 100_000
IMAGE_CLASSIFIER = "/convoy.v1.ImageClassifier/"
INFERENCE = "/inference.GRPCInferenceService/"
HEALTH = "/grpc.health.v1.Health/"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


@dataclass(frozen=True)
class Worst:
    """A message to a method over gRPC, or to a path over HTTP."""

    name: str
    target: str  # /package.Service/Method, or POST /path
    build: Callable[[], bytes]
    headers: dict[str, str] = field(default_factory=dict)
    is_read: bool = True  # the method makes something of its message

    @property
    def is_http(self) -> bool:
        return " " in self.target


def unknown_field() -> bytes:
    """Field 1000 of any message, 15 MB."""
    return b"\xc2\x3e" + varint(len(LONG)) + LONG.encode()


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def serialized(kind: Any, **fields: Any) -> Callable[[], bytes]:
    return lambda: bytes(kind(**fields).SerializeToString())


def with_long(target: str, kind: Any, name: str) -> Worst:
    return Worst(f"{name} of 15 MB", target, serialized(kind, **{name: LONG}))


def inputs_without_anything() -> bytes:
    return (
        serialized(service_pb2.ModelInferRequest, model_name="lenet5")() + b"\x2a\x00" * 1_000_000
    )


def the_same_output() -> bytes:
    output = service_pb2.ModelInferRequest.InferRequestedOutputTensor(name="label")
    tensor = service_pb2.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES")
    return serialized(
        service_pb2.ModelInferRequest, model_name="lenet5", inputs=[tensor], outputs=[output] * MANY
    )()


def json_of(value: Any) -> Callable[[], bytes]:
    return lambda: json.dumps(value).encode()


def json_list(head: str, item: str, count: int, tail: str) -> Callable[[], bytes]:
    return (head + ",".join([item] * count) + tail).encode


def image_of(size: int) -> bytes:
    content = base64.b64encode(bytes(size)).decode()
    return json.dumps({"image": {"content": content}}).encode()


def parts() -> bytes:
    part = b'--x\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n\r\n\r\n'
    return part * MANY + b"--x--\r\n"


JSON = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=x"}
CLASSIFY = "POST /v1/models/lenet5:classify"
BATCH = "POST /v1/models/lenet5:batchClassify"
INFER = "POST /v2/models/lenet5/infer"
LONG_PATH = "x" * 12_000

CONVOY = [
    with_long(f"{IMAGE_CLASSIFIER}Classify", pb.ClassifyRequest, "model"),
    Worst("an unknown field of 15 MB", f"{IMAGE_CLASSIFIER}Classify", unknown_field),
    Worst("a million names", f"{IMAGE_CLASSIFIER}Classify", lambda: b"\x0a\x01x" * 1_000_000),
    Worst("100,000 empty requests", f"{IMAGE_CLASSIFIER}BatchClassify", lambda: b"\x0a\x00" * MANY),
    with_long(f"{IMAGE_CLASSIFIER}StreamClassify", pb.ClassifyRequest, "model"),
    Worst("an unknown field of 15 MB", f"{IMAGE_CLASSIFIER}ListModels", unknown_field),
    with_long(f"{IMAGE_CLASSIFIER}GetModel", pb.GetModelRequest, "model"),
]
OTHERS = [
    with_long(f"{HEALTH}Check", health_pb2.HealthCheckRequest, "service"),
    with_long(f"{HEALTH}Watch", health_pb2.HealthCheckRequest, "service"),
    with_long(REFLECTION, reflection_pb2.ServerReflectionRequest, "file_containing_symbol"),
]
OPEN_INFERENCE = [
    Worst("a million empty inputs", f"{INFERENCE}ModelInfer", inputs_without_anything),
    Worst("100,000 times the same output", f"{INFERENCE}ModelInfer", the_same_output),
    Worst("100,000 times the same output", f"{INFERENCE}ModelStreamInfer", the_same_output),
    with_long(f"{INFERENCE}ModelReady", service_pb2.ModelReadyRequest, "name"),
    with_long(f"{INFERENCE}ModelMetadata", service_pb2.ModelMetadataRequest, "name"),
    with_long(f"{INFERENCE}ModelConfig", service_pb2.ModelConfigRequest, "name"),
    with_long(f"{INFERENCE}ModelStatistics", service_pb2.ModelStatisticsRequest, "name"),
    with_long(f"{INFERENCE}RepositoryIndex", service_pb2.RepositoryIndexRequest, "repository_name"),
]
# These make nothing of their messages.
UNREAD = [
    Worst("an unknown field of 15 MB", f"{INFERENCE}{method.name}", unknown_field, is_read=False)
    for method in service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    if f"{INFERENCE}{method.name}" not in {worst.target for worst in OPEN_INFERENCE}
]
HTTP = [
    Worst("a model's name of 15 MB", CLASSIFY, json_of({"model": LONG}), JSON),
    Worst("an unknown name of 15 MB", CLASSIFY, json_of({LONG: 1}), JSON),
    Worst("a number of 15 MB", CLASSIFY, lambda: b'{"top_k": ' + b"1" * (15 << 20) + b"}", JSON),
    Worst("15 MB of brackets", CLASSIFY, lambda: b"[" * (15 << 20), JSON),
    Worst("15 MB of quotes", CLASSIFY, lambda: b'"' * (15 << 20), JSON),
    Worst("100,000 parts", CLASSIFY, parts, FORM),
    Worst("a query of 12 kB", f"GET /v1/models?{LONG_PATH}", bytes),
    Worst("a model's name of 12 kB", f"GET /v1/models/{LONG_PATH}", bytes),
    Worst("100,000 empty requests", BATCH, json_list('{"requests":[', "{}", MANY, "]}"), JSON),
    Worst("9,000 empty requests", BATCH, json_list('{"requests":[', "{}", 9_000, "]}"), JSON),
    Worst("100,000 parts", BATCH, parts, FORM),
    Worst("a million empty inputs", INFER, json_list('{"inputs":[', "{}", 1_000_000, "]}")),
    Worst(
        "100,000 times the same output",
        INFER,
        json_list('{"inputs":[],"outputs":[', '{"name":"label"}', MANY, "]}"),
    ),
    Worst("a parameter of 15 MB", INFER, json_of({"inputs": [], "parameters": {"top_k": LONG}})),
    Worst("an id of 15 MB", INFER, json_of({"inputs": [], "id": LONG})),
    Worst(
        "15 MB of brackets, gzipped",
        INFER,
        lambda: gzip.compress(b"[" * (15 << 20)),
        {"content-encoding": "gzip"},
    ),
    Worst("15 MB of quotes", "POST /v2/repository/index", lambda: b'"' * (15 << 20)),
    Worst("a model's name of 12 kB", f"GET /v2/models/{LONG_PATH}", bytes),
    Worst("a model's name of 12 kB", f"GET /v2/models/{LONG_PATH}/ready", bytes),
    Worst("a model's name of 12 kB", f"GET /v2/models/{LONG_PATH}/config", bytes),
    Worst("a model's name of 12 kB", f"GET /v2/models/{LONG_PATH}/stats", bytes),
]
# Not refused for its size: a request of the largest image that there may be.
LARGEST = [Worst("base64 of 15 MB", CLASSIFY, lambda: image_of(11 << 20), JSON)]
WORST = [*CONVOY, *OTHERS, *OPEN_INFERENCE, *UNREAD, *HTTP]
