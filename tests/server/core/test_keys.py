"""API keys, on both wires of a real gateway: who is let in, to what, how often."""

from __future__ import annotations

import hashlib
import itertools
import queue
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import typer
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from typer.testing import CliRunner

from convoy import Client, errors
from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc
from server.core.keys import Keys, TokenBucket
from server.errors import StartFailed
from server.main import key
from tests.server.rpc_errors import rpc_details

ROOT = Path(__file__).resolve().parents[3]
WIRES = ("grpc", "http")


def secret_of(name: str) -> str:
    return f"convoy_secret-of-{name}"


def lines_of(name: str, rest: str = "") -> str:
    digest = hashlib.sha256(secret_of(name).encode()).hexdigest()
    return f'[{name}]\nsha256 = "{digest}"\n{rest}\n'


KEYS = (
    lines_of("alice")
    + lines_of("slow-bob", "requests_per_s = 0.5\nburst = 2")
    + lines_of("slow-batches", "requests_per_s = 0.01\nburst = 3")
    + lines_of("leaving-dan")
    + lines_of("narrow-eve", 'models = ["resnet152"]')
)


@pytest.fixture(scope="module")
def keys_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    path.write_text(KEYS)
    return path


@pytest.fixture(scope="module")
def guarded(serve_together: Callable[..., Any], shipped_lenet5: Path, keys_path: Path) -> Any:
    """A gateway with the keys above."""
    gateway = serve_together(
        f"--repository={shipped_lenet5.parent}", "--models=lenet5", f"--api-keys={keys_path}"
    )
    gateway.wait_until_ready()
    return gateway


def client_of(gateway: Any, wire: str, name: str) -> Client:
    return Client(getattr(gateway, wire), api_key=secret_of(name))


@pytest.fixture
def channel(guarded: Any) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(guarded.grpc) as channel:
        yield channel


@pytest.mark.parametrize("wire", WIRES)
def test_a_key_lets_its_client_in_from_an_argument_and_from_the_environment(
    guarded: Any, wire: str, digit: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client_of(guarded, wire, "alice") as client:
        assert client.classify(digit, model="lenet5").best.label == "7"
        assert [model.name for model in client.models()] == ["lenet5"]
    monkeypatch.setenv("CONVOY_API_KEY", secret_of("alice"))
    with Client(getattr(guarded, wire)) as client:
        assert client.classify(digit, model="lenet5").best.label == "7"


@pytest.mark.parametrize("key", ["", "convoy_made-up", hashlib.sha256(b"x").hexdigest()])
@pytest.mark.parametrize("wire", WIRES)
def test_nobody_is_let_in_without_a_key_or_with_a_wrong_one(
    guarded: Any, wire: str, key: str, digit: bytes
) -> None:
    with Client(getattr(guarded, wire), api_key=key) as client:
        for ask in (client.models, lambda: client.classify(digit, model="lenet5")):
            with pytest.raises(errors.NotAllowed) as failure:
                ask()
            assert failure.value.reason == "AUTH_REQUIRED"
            assert key == "" or key not in str(failure.value)


@pytest.mark.parametrize(
    "header",
    [
        secret_of("alice"),
        f"Basic {secret_of('alice')}",
        "Bearer",
        f"Bearer {secret_of('alice')}x",
        "Bearer \xff\xfe",
    ],
)
def test_what_is_no_bearer_of_a_key_is_told_the_scheme(guarded: Any, header: str) -> None:
    headers = {b"authorization": header.encode("latin-1")}
    answer = httpx.get(f"{guarded.http}/v1/models", headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["reason"] == "AUTH_REQUIRED"


def test_two_keys_in_one_request_are_none(guarded: Any) -> None:
    one = ("authorization", f"Bearer {secret_of('alice')}")
    assert httpx.get(f"{guarded.http}/v1/models", headers=[one]).status_code == 200
    assert httpx.get(f"{guarded.http}/v1/models", headers=[one, one]).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/livez",
        "/readyz",
        "/openapi.json",
        "/",
        "/page/app.js",
        "/v2/health/live",
        "/v2/health/ready",
    ],
)
def test_probes_and_the_description_need_no_key(guarded: Any, path: str) -> None:
    assert httpx.get(guarded.http + path).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/lenet5",
        "/v1/models/lenet5:classify",
        "/v2",
        "/v2/models/lenet5",
        "/livez/",
        "/livez/../v1/models",
        "/docs%2f..%2fv1/models",
        "//livez",
        "/nowhere",
    ],
)
def test_all_else_over_http_needs_one(guarded: Any, path: str) -> None:
    assert httpx.get(httpx.URL(guarded.http + path)).status_code == 401


def test_health_and_reflection_need_no_key_and_all_else_over_grpc_does(
    guarded: Any, channel: grpc.Channel
) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    health = stub.Check(health_pb2.HealthCheckRequest())
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert ProtoReflectionDescriptorDatabase(channel).get_services()
    for method in (
        "/convoy.v1.ImageClassifier/GetModel",
        "/inference.GRPCInferenceService/ModelInfer",
        "/grpc.health.v1.HealthX/Check",
        "/inference.GRPCInferenceService/ServerReadyX",
        "/no.Service/Method",
    ):
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        with pytest.raises(grpc.RpcError) as failure:
            call(b"")
        assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_stream_without_a_key_is_refused(channel: grpc.Channel) -> None:
    stub = classifier_pb2_grpc.ImageClassifierStub(channel)
    with pytest.raises(grpc.RpcError) as failure:
        next(stub.StreamClassify(iter([pb.ClassifyRequest(model="lenet5")])))
    assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED
    info = error_details_pb2.ErrorInfo()
    assert rpc_details(failure.value)[0].Unpack(info)
    assert (info.reason, info.domain) == ("AUTH_REQUIRED", "convoy.v1")


def test_no_body_is_read_of_a_stranger(guarded: Any) -> None:
    """Else strangers could fill the memory."""
    head = "POST /v1/models/lenet5:classify HTTP/1.1\r\nhost: x\r\ncontent-length: 30000000\r\n\r\n"
    host, port = guarded.http.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("wire", WIRES)
def test_a_key_for_other_models_is_forbidden_this_one(
    guarded: Any, wire: str, digit: bytes
) -> None:
    with client_of(guarded, wire, "narrow-eve") as client:
        with pytest.raises(errors.NotAllowed) as failure:
            client.classify(digit, model="lenet5")
        assert failure.value.reason == "FORBIDDEN"
        with pytest.raises(errors.NotFound):
            client.classify(digit, model="resnet152")


def test_who_comes_too_often_is_told_when_to_come_back(guarded: Any, digit: bytes) -> None:
    """Over both wires at once: the rate is the key's."""
    with (
        client_of(guarded, "grpc", "slow-bob") as one,
        client_of(guarded, "http", "slow-bob") as two,
    ):
        with pytest.raises(errors.Overloaded) as failure:
            for _ in range(9):
                one.models()
                two.classify(digit, model="lenet5")
        assert failure.value.reason == "RATE_LIMITED"
        assert failure.value.retry_after_s and 0 < failure.value.retry_after_s <= 2
        with pytest.raises(errors.Overloaded):
            one.models()
        time.sleep(failure.value.retry_after_s)
        assert one.classify(digit, model="lenet5").best.label == "7"


def test_a_batch_and_a_stream_are_no_way_round_the_rate(
    guarded: Any, channel: grpc.Channel, digit: bytes
) -> None:
    stub = classifier_pb2_grpc.ImageClassifierStub(channel)
    metadata = [("authorization", f"Bearer {secret_of('slow-batches')}")]
    request = pb.ClassifyRequest(model="lenet5", image=pb.Image(content=digit))
    batch = pb.BatchClassifyRequest(requests=[request] * 9)
    results = stub.BatchClassify(batch, metadata=metadata).results
    assert [result.WhichOneof("result") for result in results].count("error") >= 6
    assert {result.error.code for result in results} == {
        0,
        grpc.StatusCode.RESOURCE_EXHAUSTED.value[0],
    }


def test_the_log_has_the_names_and_neither_keys_nor_images(guarded: Any, digit: bytes) -> None:
    with client_of(guarded, "http", "alice") as client:
        client.classify(digit, model="lenet5", request_id="seen-in-the-log")
    guarded.wait_for(lambda: "seen-in-the-log" in guarded.log())
    log = guarded.log()
    (line,) = [line for line in log.splitlines() if "seen-in-the-log" in line]
    assert '"client": "alice"' in line
    assert "secret-of" not in log and "Bearer " not in log.replace("Bearer KEY", "")
    assert "IHDR" not in log


GARBAGE = (b"", b"\xff" * 9, b"GIF89a", b"{", b'{"image": 7}', b"--x", b"[" * 5000)
KINDS = ("", "application/json", "multipart/form-data", "multipart/form-data; boundary=x", "\u20ac")


def test_no_error_over_http_tells_of_the_gateways_insides(guarded: Any, keys_path: Path) -> None:
    bearer = {b"authorization": f"Bearer {secret_of('alice')}".encode()}
    errors = set()
    with httpx.Client(base_url=guarded.http) as client:
        for path in ("lenet5:classify", "lenet5:batchClassify", "..%2f..%2fetc:classify", "%00"):
            for headers in (dict[bytes, bytes](), bearer):
                for body, kind in itertools.product(GARBAGE, KINDS):
                    kinds = {b"content-type": kind.encode()} if kind else {}
                    answer = client.post(
                        f"/v1/models/{path}", content=body, headers=headers | kinds
                    )
                    assert answer.status_code in (400, 401, 404, 405, 413, 415)
                    assert answer.headers["content-type"] == "application/problem+json"
                    errors.add(answer.text)
    assert len(errors) > 10
    assert_nothing_is_told_of_the_insides("\n".join(errors), keys_path)


def test_no_error_over_grpc_does(guarded: Any, channel: grpc.Channel, keys_path: Path) -> None:
    metadata = (("authorization", f"Bearer {secret_of('alice')}"),)
    errors = set()
    for method in ("Classify", "BatchClassify", "GetModel", "ListModels", "Nothing"):
        for message, with_key in itertools.product(GARBAGE, (True, False)):
            path = f"/convoy.v1.ImageClassifier/{method}"
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
            try:
                call(message, metadata=metadata if with_key else None, timeout=10)
            except grpc.RpcError as error:
                errors.add(f"{error.code()} {error.details()} {error.trailing_metadata()}")
    assert len(errors) > 4
    assert_nothing_is_told_of_the_insides("\n".join(errors), keys_path)


def assert_nothing_is_told_of_the_insides(text: str, keys_path: Path) -> None:
    for inside in ("Traceback", ".py", "site-packages", "convoy_", str(ROOT), str(keys_path)):
        assert inside not in text
    assert not re.search(r"0x[0-9a-f]{6}|<class ", text)


def test_keys_are_read_anew_on_sighup_and_a_broken_file_changes_nothing(
    guarded: Any, keys_path: Path
) -> None:
    def may(name: str) -> bool:
        with client_of(guarded, "http", name) as client:
            try:
                return bool(client.models())
            except errors.NotAllowed:
                return False

    with client_of(guarded, "grpc", "leaving-dan") as open_one:
        assert open_one.models()
        keys_path.write_text(KEYS.replace(lines_of("leaving-dan"), lines_of("coming-fay")))
        guarded.process.send_signal(signal.SIGHUP)
        guarded.wait_for(lambda: may("coming-fay"))
        assert not may("leaving-dan")
        with pytest.raises(errors.NotAllowed):
            open_one.models()
    keys_path.write_text("[coming-fay]\nsha256 = 7\n")
    guarded.process.send_signal(signal.SIGHUP)
    guarded.wait_for(lambda: "the keys stay as they were" in guarded.log())
    assert may("coming-fay") and may("alice")


def test_strangers_learn_no_names_and_no_reasons(
    serve: Callable[..., Any], shipped_lenet5: Path, keys_path: Path
) -> None:
    """Neither from the descriptions nor from a probe that fails; the admin port has reasons."""
    options = (f"--repository={shipped_lenet5.parent}", f"--api-keys={keys_path}")
    keys_path.write_text(KEYS)
    gateway = serve(*options, "--models=lenet5,secret-name")
    gateway.wait_for(lambda: "secret-name" in httpx.get(f"{gateway.admin}/readyz").text)
    assert httpx.get(f"{gateway.http}/readyz").text == "not ready\n"
    gateway.wait_for(lambda: "lenet5.v1 is proven" in gateway.log())
    examples = httpx.get(f"{gateway.http}/openapi.json").json()["components"]["examples"]
    assert examples["ClassifyRequest"]["value"]["image"]["content"] == ""


def test_descriptions_have_a_rate_for_strangers_and_probes_have_none(
    guarded: Any, channel: grpc.Channel
) -> None:
    with httpx.Client(base_url=guarded.http) as client, ThreadPoolExecutor(20) as crowd:
        codes = set(crowd.map(lambda _: client.get("/openapi.json").status_code, range(200)))
        assert codes == {200, 429}
        assert set(crowd.map(lambda _: client.get("/readyz").status_code, range(200))) == {200}
        reflection = ProtoReflectionDescriptorDatabase(channel)
        with pytest.raises(grpc.RpcError) as failure:
            list(crowd.map(lambda _: reflection.get_services(), range(200)))
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


REPLACED = f'[alice]\nsha256 = "{hashlib.sha256(b"another").hexdigest()}"\n'


def reload(gateway: Any, keys_path: Path, text: str) -> None:
    keys_path.write_text(text)
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_for(lambda: f"reloaded {keys_path}" in gateway.log() or "no key" in gateway.log())


@pytest.mark.parametrize("text", [REPLACED, ""])
def test_a_stream_ends_when_its_key_is_replaced_or_the_last_one_withdrawn(
    serve: Callable[..., Any], shipped_lenet5: Path, tmp_path: Path, digit: bytes, text: str
) -> None:
    """On either contract; with no key left nobody may enter, and the log says so loudly."""
    keys_path = tmp_path / "keys.toml"
    keys_path.write_text(lines_of("alice"))
    gateway = serve(
        f"--repository={shipped_lenet5.parent}", "--models=lenet5", f"--api-keys={keys_path}"
    )
    gateway.wait_until_ready()
    classify = pb.ClassifyRequest(model="lenet5", image=pb.Image(content=digit))
    with grpc.insecure_channel(gateway.grpc) as channel:
        streams = [
            Stream(channel, "/convoy.v1.ImageClassifier/StreamClassify"),
            Stream(channel, "/inference.GRPCInferenceService/ModelStreamInfer"),
        ]
        for stream in streams:
            assert stream.answer_to(classify.SerializeToString())
        reload(gateway, keys_path, text)
        for stream in streams:
            with pytest.raises(grpc.RpcError) as failure:
                stream.answer_to(classify.SerializeToString())
            assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with client_of(gateway, "http", "alice") as client, pytest.raises(errors.NotAllowed):
        client.models()
    assert text or '"level": "critical"' in gateway.log()


class Stream:
    """A stream of raw messages, one answer after the other."""

    def __init__(self, channel: grpc.Channel, method: str) -> None:
        self._requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        metadata = [("authorization", f"Bearer {secret_of('alice')}")]
        requests = iter(self._requests.get, b"")
        stream: Any = channel.stream_stream(method)
        self._answers = stream(requests, metadata=metadata, timeout=60)

    def answer_to(self, message: bytes) -> Any:
        self._requests.put(message)
        return next(self._answers)


# ---------------------------------------------------------------- without a gateway


def test_convoy_key_prints_the_lines_and_the_key_apart(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(key)
    said = CliRunner().invoke(app, ["alice", "--requests-per-s", "2.5"])
    (secret,) = [word for word in said.stderr.split() if word.startswith("convoy_")]
    assert len(secret) == len("convoy_") + 43 and secret not in said.stdout
    path = tmp_path / "keys.toml"
    path.write_text(said.stdout)
    assert Keys(path).check(f"Bearer {secret}").name == "alice"
    assert "requests_per_s = 2.5" in said.stdout
    assert CliRunner().invoke(app, ["no.name"]).exit_code == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no key"),
        ("[a", "not valid TOML"),
        ("[a]\n", "a.sha256: Field required"),
        ('[a]\nsha256 = "convoy_x"\n', "a.sha256"),
        (lines_of("a", "rate = 1"), "a.rate: Extra"),
        (lines_of("a", "requests_per_s = 0"), "a.requests_per_s"),
        (lines_of("a") + lines_of("a").replace("[a]", "[b]"), "under two names"),
    ],
)
def test_a_file_of_keys_that_is_wrong_is_told_in_one_line(
    tmp_path: Path, text: str, why: str
) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(StartFailed) as failure:
        Keys(path)
    assert why in str(failure.value) and "\n" not in str(failure.value)


def test_a_file_of_keys_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="cannot be read"):
        Keys(tmp_path / "none.toml")


def test_reading_anew_is_no_way_round_a_rate(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(lines_of("bob", "requests_per_s = 0.001\nburst = 1"))
    keys = Keys(path)
    digest = keys.check(f"Bearer {secret_of('bob')}").entry.sha256
    keys.reload()
    with pytest.raises(Exception, match="may send"):
        keys.charge("bob", digest)


def test_a_bucket_gives_its_burst_then_its_rate() -> None:
    bucket = TokenBucket(per_s=2, burst=3)
    assert [bucket.take() for _ in range(3)] == [0, 0, 0]
    wait_s = bucket.take()
    assert 0 < wait_s <= 0.5
    time.sleep(wait_s)
    assert bucket.take() == 0
    assert bucket.take() > 0
