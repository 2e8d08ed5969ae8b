"""Traces, as a collector receives them: our spans, and Triton's under ours."""

from __future__ import annotations

import ast
import base64
import contextlib
import hashlib
import json
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

import grpc
import httpx
import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc
from tests.server.rpc_errors import rpc_details

ROOT = Path(__file__).resolve().parents[3]
CLIENT_SPAN = "b7ad6b7169203331"
SERVER = trace_pb2.Span.SPAN_KIND_SERVER


class Gateway(Protocol):
    http: str
    grpc: str
    admin: str
    process: subprocess.Popen[str]

    def log(self) -> str: ...
    def stop(self) -> int: ...
    def wait_until_ready(self) -> None: ...


@dataclass(frozen=True)
class Span:
    name: str
    trace: str
    id: str
    parent: str
    kind: int
    service: str
    facts: dict[str, str | int]
    failed: bool


class Collector:
    """Receives OTLP over HTTP: protobuf from us, JSON from Triton."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.authorizations: set[str | None] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                assert self.path == "/v1/traces"
                is_json = self.headers["content-type"] == "application/json"
                outer.authorizations.add(self.headers["authorization"])
                outer.spans += spans_of(parse_json(body) if is_json else parse(body))
                self.send_response(200)
                self.send_header("content-type", self.headers["content-type"])
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def spans_of_trace(self, trace: str, count: int) -> dict[str, Span]:
        """Ours by name, once there are as many."""
        ours = self._wait(
            lambda span: span.trace == trace and span.service == "convoy", count=count
        )
        return {span.name: span for span in ours}

    def tritons(self) -> list[Span]:
        """What Triton sent of its requests, once there is any: each 5 s, and not each of them."""
        return self._wait(lambda span: span.name == "InferRequest", count=1)

    def _wait(self, wanted: Callable[[Span], bool], count: int) -> list[Span]:
        deadline_s = time.monotonic() + 60
        while len(found := [span for span in self.spans if wanted(span)]) < count:
            assert time.monotonic() < deadline_s, self.spans
            time.sleep(0.05)
        return found


def parse(body: bytes) -> trace_service_pb2.ExportTraceServiceRequest:
    return trace_service_pb2.ExportTraceServiceRequest.FromString(body)


def parse_json(body: bytes) -> trace_service_pb2.ExportTraceServiceRequest:
    """OTLP's JSON differs from protobuf's in that its identifiers are hexadecimal."""

    def with_base64(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {
            name: base64.b64encode(bytes.fromhex(value)).decode() if name.endswith("Id") else value
            for name, value in pairs
        }

    document = json.loads(body, object_pairs_hook=with_base64)
    return json_format.ParseDict(document, trace_service_pb2.ExportTraceServiceRequest())


def spans_of(request: trace_service_pb2.ExportTraceServiceRequest) -> Iterator[Span]:
    for resource in request.resource_spans:
        facts = {
            attribute.key: attribute.value.string_value
            for attribute in resource.resource.attributes
        }
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.kind,
                    facts["service.name"],
                    {
                        attribute.key: attribute.value.string_value or attribute.value.int_value
                        for attribute in span.attributes
                    },
                    span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
                )


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running_collector() as collector:
        yield collector


@contextlib.contextmanager
def running_collector() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever)
    thread.start()
    yield collector
    collector.server.shutdown()
    thread.join()
    collector.server.server_close()


def traceparent(trace: str, *, sampled: bool = True) -> dict[str, str]:
    return {"traceparent": f"00-{trace}-{CLIENT_SPAN}-0{int(sampled)}"}


def classify(gateway: Gateway, content: bytes, headers: dict[str, str]) -> httpx.Response:
    url = f"{gateway.http}/v1/models/lenet5:classify"
    return httpx.post(url, content=content, headers=headers)


def serve_traced(
    serve: Callable[..., Gateway], repository: Path, collector: str, *options: str
) -> Gateway:
    """A ready gateway that sends its spans after a tenth of a second."""
    gateway = serve(
        f"--repository={repository}",
        f"--otlp-endpoint={collector}",
        *options,
        environment={"OTEL_BSP_SCHEDULE_DELAY": "100"},
    )
    gateway.wait_until_ready()
    return gateway


def stub_of(channel: grpc.Channel) -> Any:
    return classifier_pb2_grpc.ImageClassifierStub(channel)


def test_a_request_is_a_span_under_its_clients_with_its_steps_under_it(
    collector: Collector,
    serve: Callable[..., Gateway],
    repository: Path,
    runner_name: str,
    digit: bytes,
) -> None:
    gateway = serve_traced(serve, repository, collector.address, f"--runner={runner_name}")
    http, over_grpc, unsampled, refused, batch = (digit_ * 32 for digit_ in "abcde")

    classify(gateway, digit, traceparent(http)).raise_for_status()
    classify(gateway, digit, traceparent(unsampled, sampled=False)).raise_for_status()
    assert classify(gateway, b"no picture", traceparent(refused)).status_code == 415
    classify(gateway, digit, {}).raise_for_status()
    request = pb.ClassifyRequest(model="lenet5", image=pb.Image(content=digit))
    with grpc.insecure_channel(gateway.grpc) as channel:
        metadata = list(traceparent(over_grpc).items())
        stub_of(channel).Classify(request, metadata=metadata)
        two = pb.BatchClassifyRequest(requests=[request, request])
        stub_of(channel).BatchClassify(two, metadata=list(traceparent(batch).items()))

    for trace in (http, over_grpc):
        spans = collector.spans_of_trace(trace, 3)
        whole, prepare, infer = spans["classify"], spans["prepare"], spans["infer"]
        assert (whole.parent, whole.kind, whole.service) == (CLIENT_SPAN, SERVER, "convoy")
        assert whole.facts.pop("convoy.request_id") and not whole.failed
        assert whole.facts == {"convoy.model": "lenet5"}
        assert prepare.parent == infer.parent == whole.id
        assert infer.facts == {
            "convoy.model": "lenet5",
            "convoy.version": "1",
            "convoy.batch_size": 1,
        }
    spans = collector.spans_of_trace(refused, 2)
    assert spans["classify"].failed
    assert spans["classify"].facts["convoy.reason"] == "IMAGE_FORMAT_UNSUPPORTED"

    spans = collector.spans_of_trace(batch, 5)
    assert spans["classify_batch"].parent == CLIENT_SPAN
    assert spans["infer"].parent == spans["classify_batch"].id

    if runner_name == "triton-local":
        # Of some requests Triton sends none; what it sends lies under ours.
        places = {(span.trace, span.id) for span in collector.spans if span.name == "infer"}
        for span in collector.tritons():
            assert span.service == "triton-inference-server"
            assert (span.trace, span.parent) in places

    # Its lines were written before those that were waited for; so would its spans have been.
    assert unsampled in gateway.log()
    known = {http, over_grpc, refused, batch}
    (own,) = {span.trace for span in collector.spans} - known
    assert own in gateway.log()


KEY = "convoy_secret"
BEARER = {"authorization": f"Bearer {KEY}"}
TOO_LARGE = bytes(200_000)


@pytest.fixture(scope="module")
def traced(
    serve_together: Callable[..., Gateway],
    shipped_lenet5: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Gateway, Collector]]:
    """A gateway with a key, which accepts 100,000 bytes, and its collector."""
    keys_path = tmp_path_factory.mktemp("keys") / "keys.toml"
    keys_path.write_text(f'[alice]\nsha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"\n')
    with running_collector() as collector:
        limits = ("--max-request-bytes=100000", "--max-image-bytes=100000")
        options = ("--models=lenet5", f"--api-keys={keys_path}", *limits)
        gateway = serve_traced(serve_together, shipped_lenet5.parent, collector.address, *options)
        yield gateway, collector


def answer_id_over_http(gateway: Gateway, path: str, headers: dict[str, str], body: bytes) -> str:
    answer = httpx.post(gateway.http + path, headers=headers, content=body)
    request_id: str = answer.json()["request_id"]
    assert answer.headers["x-request-id"] == request_id
    return request_id


def answer_id_over_grpc(gateway: Gateway, path: str, headers: dict[str, str], body: bytes) -> str:
    with grpc.insecure_channel(gateway.grpc) as channel, pytest.raises(grpc.RpcError) as failure:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
        call(body, metadata=tuple(headers.items()))
    info = error_details_pb2.RequestInfo()
    assert rpc_details(failure.value)[-1].Unpack(info)
    return str(info.request_id)


KINDS = ("text/html", "application/json", "text/plain")
CLASSIFY = "/v1/models/lenet5:classify"
GRPC_CLASSIFY = "/convoy.v1.ImageClassifier/Classify"
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("answer_id", "path", "headers", "body", "outcome"),
    [
        (answer_id_over_http, CLASSIFY, {**BEARER, **JSON}, b"{", "MALFORMED_REQUEST"),
        (answer_id_over_http, CLASSIFY, {}, b"", "AUTH_REQUIRED"),
        (answer_id_over_http, "/v9", BEARER, b"", "UNIMPLEMENTED"),
        (answer_id_over_http, CLASSIFY, BEARER, TOO_LARGE, "IMAGE_TOO_LARGE"),
        (answer_id_over_grpc, GRPC_CLASSIFY, BEARER, b"\xff" * 9, "MALFORMED_REQUEST"),
        (answer_id_over_grpc, GRPC_CLASSIFY, {}, b"", "AUTH_REQUIRED"),
        (answer_id_over_grpc, "/no.Service/Method", BEARER, b"", "UNIMPLEMENTED"),
        (answer_id_over_grpc, GRPC_CLASSIFY, BEARER, TOO_LARGE, "IMAGE_TOO_LARGE"),
    ],
    ids=[
        *("HTTP body", "HTTP key", "HTTP route", "HTTP size"),
        *("gRPC body", "gRPC key", "gRPC method", "gRPC size"),
    ],
)
def test_what_fails_early_has_one_id_in_answer_log_and_trace(
    traced: tuple[Gateway, Collector],
    answer_id: Callable[[Gateway, str, dict[str, str], bytes], str],
    path: str,
    headers: dict[str, str],
    body: bytes,
    outcome: str,
) -> None:
    gateway, collector = traced
    trace = uuid.uuid4().hex
    request_id = answer_id(gateway, path, {**headers, **traceparent(trace)}, body)
    span = collector.spans_of_trace(trace, 1)["receive"]
    assert (span.parent, span.kind, span.failed) == (CLIENT_SPAN, SERVER, True)
    assert span.facts == {"convoy.request_id": request_id, "convoy.reason": outcome}
    lines = [json.loads(line) for line in gateway.log().splitlines()]
    (line,) = [line for line in lines if line.get("request_id") == request_id]
    assert (line["trace_id"], line["outcome"], line["path"]) == (trace, outcome, path)


def test_a_collectors_password_goes_to_the_collector_alone(
    collector: Collector,
    serve: Callable[..., Gateway],
    repository: Path,
    runner_name: str,
    digit: bytes,
) -> None:
    address = collector.address.replace("//", "//me:se%40cret@")
    options = (f"--runner={runner_name}", "--log-level=debug")
    gateway = serve_traced(serve, repository, address, *options)
    trace = "f" * 32
    classify(gateway, digit, traceparent(trace)).raise_for_status()
    collector.spans_of_trace(trace, 3)
    if runner_name == "triton-local":
        collector.tritons()
    assert collector.authorizations == {"Basic bWU6c2VAY3JldA=="}
    shown = [httpx.get(f"{gateway.admin}/statusz", headers={"accept": kind}).text for kind in KINDS]
    children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text()
    shown += [Path(f"/proc/{child}/cmdline").read_text() for child in children.split()]
    assert "secret" not in "".join([*shown, gateway.log()]).replace("%40", "").replace("@", "")
    assert all("//***@" in page for page in shown[: len(KINDS)])


def test_a_collector_that_does_not_answer_costs_traces_and_nothing_else(
    serve: Callable[..., Gateway], repository: Path, digit: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        gateway = serve_traced(serve, repository, address)
        for _ in range(3):
            classify(gateway, digit, {}).raise_for_status()
        started_s = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - started_s < 10


@pytest.mark.parametrize(
    "header", ["", "nonsense", f"00-{'0' * 32}-{CLIENT_SPAN}-01", "00-" + "a" * 32 + "\t-b-01"]
)
def test_what_is_no_traceparent_is_ignored(
    lenet_gateway: Gateway, digit: bytes, header: str
) -> None:
    classify(lenet_gateway, digit, {"traceparent": header}).raise_for_status()


def test_who_does_not_trace_does_not_load_it() -> None:
    for path in (ROOT / "server").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            assert not (
                isinstance(node, ast.Import | ast.ImportFrom)
                and "opentelemetry" in ast.unparse(node)
            ), f"{path} loads opentelemetry when it is imported"
