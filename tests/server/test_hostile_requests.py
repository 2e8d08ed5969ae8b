"""The worst that a client can send, to each method of each wire: it is refused, and cheaply."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import grpc
import httpx
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from tritonclient.grpc import service_pb2

from bench.messages import WORST, Worst
from bench.worst_messages import send
from convoy.v1 import classifier_pb2 as pb

HUGE = ["9" * 5000, "-" + "9" * 5000, "1e999", "-1", "", "٣", "é\u202e", "0x10", "1" * 19, "nan"]
INTEGERS = [2**31 - 1, -(2**31), -1, 0, 2**63 - 1, -(2**63), 2**64 - 1]
SERVICES = [pb.DESCRIPTOR, service_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR]
DIGIT = Path(__file__).parents[1] / "data" / "digit-7.png"


class Gateway(Protocol):
    http: str
    grpc: str
    log_path: Path

    def log(self) -> str: ...
    def wait_for(self, is_so: Callable[[], bool]) -> None: ...


@pytest.fixture(scope="module")
def gateway(serve_together: Callable[..., Any], shipped_lenet5: Path) -> Any:
    started = serve_together(f"--repository={shipped_lenet5.parent}", "--models=lenet5")
    started.wait_until_ready()
    return started


@pytest.fixture(autouse=True)
def no_traceback(gateway: Gateway) -> Iterator[None]:
    yield
    log = gateway.log()
    assert "Traceback" not in log and "INTERNAL" not in log, log[-3000:]


# ---------------------------------------------------------------- the worst message of each method


@pytest.mark.parametrize("worst", WORST, ids=lambda worst: f"{worst.name} to {worst.target[:60]}")
def test_the_worst_message_is_refused_in_few_words(gateway: Gateway, worst: Worst) -> None:
    before = gateway.log().count("\n")
    answer = send(worst, gateway.http, gateway.grpc)
    if worst.is_read:
        assert re.match(r"(INVALID_ARGUMENT|400|431|4\d\d)\b|OK: .*the limit", answer), answer
        gateway.wait_for(lambda: gateway.log().count("\n") > before)
        assert gateway.log().count("\n") - before == 1
    assert len(answer) < 1000
    assert len(max(gateway.log().splitlines(), key=len)) < 1000


def test_there_is_a_worst_message_for_each_method() -> None:
    methods = {
        f"/{service.full_name}/{method.name}"
        for file in SERVICES
        for service in file.services_by_name.values()
        for method in service.methods
    }
    assert methods == {worst.target for worst in WORST if not worst.is_http}


# ---------------------------------------------------------------- numbers and texts


def methods() -> Iterator[tuple[str, Any]]:
    for file in SERVICES:
        for service in file.services_by_name.values():
            for method in service.methods:
                yield f"/{service.full_name}/{method.name}", method.input_type


def messages(kind: Any) -> Iterator[Message]:
    """One for each field, however deep, and each value; the fields beside it are valid."""
    for described in kind.fields:
        for value in values(described):
            message = kind._concrete_class()
            fill(message)
            target = message if described.containing_type is kind else None
            assert target is not None
            if described.is_repeated and described.message_type is None:
                getattr(target, described.name)[:] = [value]
            elif described.message_type is None:
                setattr(target, described.name, value)
            elif not described.is_repeated:
                getattr(target, described.name).CopyFrom(value)
            elif not described.message_type.GetOptions().map_entry:
                del getattr(target, described.name)[:]
                getattr(target, described.name).add().CopyFrom(value)
            yield message


def fill(message: Any) -> None:
    for name in ("model", "model_name", "name"):
        if name in message.DESCRIPTOR.fields_by_name:
            setattr(message, name, "lenet5")
    if isinstance(message, pb.ClassifyRequest):
        message.image.content = DIGIT.read_bytes()
    if isinstance(message, service_pb2.ModelInferRequest):
        message.inputs.add(name="image", datatype="BYTES", shape=[1])
        message.inputs[0].contents.bytes_contents.append(DIGIT.read_bytes())


def values(described: Any) -> list[Any]:
    if described.message_type:
        return list(messages(described.message_type))
    if described.type == FieldDescriptor.TYPE_STRING:
        return [text[:256] for text in HUGE]
    if described.type == FieldDescriptor.TYPE_BYTES:
        return [b"", b"\xff" * 300]
    if described.type == FieldDescriptor.TYPE_BOOL:
        return [True]
    if described.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return [float("nan"), float("inf"), -1e308 if described.cpp_type == 5 else -1e38, 0.0]
    bits = 64 if "64" in str(described.cpp_type) or described.cpp_type in (2, 4) else 32
    is_signed = described.cpp_type in (1, 2)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if is_signed else (0, (1 << bits) - 1)
    return [number for number in INTEGERS if low <= number <= high]


@pytest.mark.parametrize(
    ("target", "kind"), list(methods()), ids=[target for target, _ in methods()]
)
def test_no_field_makes_a_method_fail(gateway: Gateway, target: str, kind: Any) -> None:
    with grpc.insecure_channel(gateway.grpc) as channel:
        codes = [ask(channel, target, message.SerializeToString()) for message in messages(kind)]
    assert {"INTERNAL", "UNKNOWN"}.isdisjoint(codes)


def ask(channel: grpc.Channel, target: str, message: bytes, timeout_s: float = 10.0) -> str:
    method: Any = channel.stream_stream(target)
    call = method(iter([message]), timeout=timeout_s)
    try:
        answer = next(iter(call), b"")  # of a stream, the first
    except grpc.RpcError:
        return str(call.code().name)
    finally:
        call.cancel()
    return "INTERNAL" if b"INTERNAL" in answer else "OK"


def http_requests() -> Iterator[tuple[str, str, dict[str, Any]]]:
    form = {"files": {"image": ("a.png", b"x")}}
    for text in HUGE:
        shown = httpx.QueryParams({"x": text})["x"]
        for name in ("top_k", "min_score", "version", "request_id"):
            yield "POST", "/v1/models/lenet5:classify", {"params": {name: shown}, "content": b"x"}
            yield "POST", "/v1/models/lenet5:batchClassify", {"params": {name: shown}, **form}
        yield "GET", "/v1/models/lenet5", {"params": {"version": shown}}
        for path in ("", "/ready", "/config", "/stats"):
            yield "GET", f"/v2/models/lenet5/versions/{text or 'x'}{path}", {}
        yield "POST", f"/v2/models/lenet5/versions/{text or 'x'}/infer", {"content": b"{}"}
        header = text.encode()
        for name in (
            "x-request-timeout-ms",
            "inference-header-content-length",
            "content-encoding",
            "content-type",
            "x-request-id",
            "traceparent",
            "tracestate",
            "authorization",
            "upgrade",
        ):
            headers = {name: header, "connection": "upgrade, keep-alive"}
            for path in ("/v1/models/lenet5:classify", "/v2/models/lenet5/infer"):
                yield "POST", path, {"headers": headers, "content": b"x"}
            yield "POST", "/v1/models/lenet5:batchClassify", {"headers": headers, "content": b"x"}


@pytest.mark.parametrize("start", range(0, 500, 100))
def test_no_header_and_no_parameter_makes_the_gateway_fail(gateway: Gateway, start: int) -> None:
    with httpx.Client(base_url=gateway.http, timeout=30) as client:
        for method, path, arguments in itertools.islice(http_requests(), start, start + 100):
            answer = client.request(method, path, **arguments)
            assert answer.status_code < 500 or answer.status_code == 504, (path, arguments)
            assert answer.status_code < 400 or len(answer.text) < 1500


@pytest.mark.parametrize("charset", ["undefined", "idna", "punycode", "rot13", "hex", "x" * 3000])
def test_no_charset_makes_the_gateway_fail(gateway: Gateway, charset: str) -> None:
    body = b'--x\r\ncontent-disposition: form-data; name="im\xffage"; filename="a"\r\n\r\n\r\n--x--'
    headers = {"content-type": f"multipart/form-data; charset={charset}; boundary=x"}
    answer = httpx.post(f"{gateway.http}/v1/models/lenet5:classify", content=body, headers=headers)
    assert answer.status_code == 400


@pytest.mark.parametrize("number", ["9" * 5000, "-1", "1.5", "1e999", '"٣"', "true", "[]", '""'])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/models/lenet5:classify", '{"top_k": NUMBER}'),
        ("/v1/models/lenet5:classify", '{"min_score": NUMBER}'),
        ("/v1/models/lenet5:classify", '{"version": NUMBER}'),
        ("/v1/models/lenet5:batchClassify", '{"requests": [{"top_k": NUMBER}]}'),
        ("/v2/models/lenet5/infer", '{"inputs": [], "parameters": {"top_k": NUMBER}}'),
        ("/v2/models/lenet5/infer", '{"inputs": [], "parameters": {"timeout": NUMBER}}'),
        (
            "/v2/models/lenet5/infer",
            '{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [NUMBER]}]}',
        ),
        (
            "/v2/models/lenet5/infer",
            '{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], '
            '"parameters": {"binary_data_size": NUMBER}}]}',
        ),
        ("/v2/repository/index", '{"ready": NUMBER}'),
    ],
)
def test_no_number_in_json_makes_the_gateway_fail(
    gateway: Gateway, path: str, body: str, number: str
) -> None:
    headers = {"content-type": "application/json"}
    content = body.replace("NUMBER", number).encode()
    answer = httpx.post(f"{gateway.http}{path}", content=content, headers=headers)
    assert answer.status_code < 500
    assert len(answer.text) < 1000


# ---------------------------------------------------------------- what the log does not say


def test_short_deadlines_leave_no_traceback(gateway: Gateway) -> None:
    message = pb.ClassifyRequest(model="lenet5", image=pb.Image(content=DIGIT.read_bytes()))
    raw = message.SerializeToString()
    targets = [f"/convoy.v1.ImageClassifier/{name}" for name in ("Classify", "StreamClassify")]
    with grpc.insecure_channel(gateway.grpc) as channel, ThreadPoolExecutor(16) as threads:
        asking = [
            threads.submit(ask, channel, target, raw, timeout_ms / 1e3)
            for timeout_ms in range(1, 100)
            for target in (*targets, "/inference.GRPCInferenceService/ServerLive")
        ]
    assert "DEADLINE_EXCEEDED" in {asked.result() for asked in asking}


@pytest.mark.parametrize("protocol", ["websocket", "h2c", "x" * 3000])
def test_an_upgrade_is_ignored_without_a_word(gateway: Gateway, protocol: str) -> None:
    before = gateway.log()
    headers = {"connection": "upgrade", "upgrade": protocol}
    assert httpx.get(f"{gateway.http}/livez", headers=headers).status_code == 200
    assert gateway.log() == before


def test_a_refused_batch_leaves_one_line(gateway: Gateway) -> None:
    before = len(gateway.log().splitlines())
    content = json.dumps({"requests": [{"image": {"content": "AAAA"}}] * 60}).encode()
    answer = httpx.post(
        f"{gateway.http}/v1/models/lenet5:batchClassify",
        content=content,
        headers={"content-type": "application/json", "x-request-id": "one-batch"},
    )
    results = answer.json()["results"]
    assert results[7]["request_id"] == "one-batch-7"
    gateway.wait_for(lambda: "one-batch" in gateway.log())
    (line,) = gateway.log().splitlines()[before:]
    fields = json.loads(line)
    assert (fields["request_id"], fields["images"], fields["failed"]) == ("one-batch", 60, 60)
    assert fields["outcome"] == "IMAGE_FORMAT_UNSUPPORTED"
    assert fields["image_bytes"] == 180
