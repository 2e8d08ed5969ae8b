"""The client library: the same over both wires."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, Protocol

import pytest

from convoy import Client, errors
from convoy.client import Classification


class Gateway(Protocol):
    http: str
    grpc: str


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, lenet_gateway: Gateway) -> Iterator[Client]:
    with Client(getattr(lenet_gateway, request.param)) as client:
        yield client


def test_a_digit_is_classified_from_bytes_and_from_a_file(
    client: Client, digit: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "digit.png"
    path.write_bytes(digit)
    answer = client.classify(digit, model="lenet5", top_k=3, request_id="one")
    assert (answer.best.label, answer.best.index, len(answer.classes)) == ("7", 7, 3)
    assert (answer.model, answer.version, answer.request_id) == ("lenet5", "1", "one")
    assert (answer.weights, answer.precision, answer.device) == ("digits", "fp32", "cpu")
    assert answer.batch_size == 1
    assert client.classify(path, model="lenet5").classes[:3] == answer.classes


def test_a_batch_gives_each_its_answer_or_its_error(client: Client, digit: bytes) -> None:
    seven, text, again = client.classify_batch([digit, b"hello", digit], model="lenet5", top_k=1)
    assert isinstance(seven, Classification) and isinstance(again, Classification)
    assert (seven.best.label, len(seven.classes)) == ("7", 1)
    assert seven.best == again.best
    assert isinstance(text, errors.BadImage) and text.reason == "IMAGE_FORMAT_UNSUPPORTED"
    assert client.classify_batch([], model="lenet5") == []


def test_models_are_listed_and_told(client: Client) -> None:
    assert [model.name for model in client.models()] == ["lenet5"]
    assert client.model("lenet5").manifest.parameters == 60_000


@pytest.mark.parametrize(
    ("image", "options", "kind", "reason"),
    [
        (b"", {}, errors.BadImage, "IMAGE_DECODE_FAILED"),
        (b"hello", {}, errors.BadImage, "IMAGE_FORMAT_UNSUPPORTED"),
        (bytes(17 << 20), {}, errors.BadImage, "IMAGE_TOO_LARGE"),
        (b"hello", {"model": "lenet4"}, errors.NotFound, "MODEL_NOT_FOUND"),
        (b"hello", {"model": "a b?c%"}, errors.NotFound, "MODEL_NOT_FOUND"),
        (b"hello", {"version": "7"}, errors.NotFound, "VERSION_NOT_FOUND"),
        (b"hello", {"top_k": -1}, errors.InvalidRequest, "MALFORMED_REQUEST"),
    ],
    ids=["empty", "text", "large", "model", "odd name", "version", "option"],
)
def test_errors_are_the_same_over_both_wires(
    client: Client,
    image: bytes,
    options: dict[str, str],
    kind: type[errors.ConvoyError],
    reason: str,
) -> None:
    with pytest.raises(kind) as failure:
        client.classify(image, **{"model": "lenet5", **options})  # type: ignore[arg-type]
    assert failure.value.reason == reason


def test_a_deadline_is_the_clients(lenet_gateway: Gateway, digit: bytes) -> None:
    for server in (lenet_gateway.grpc, lenet_gateway.http):
        with Client(server, timeout_s=0.0001) as client, pytest.raises(errors.DeadlineExceeded):
            client.classify(digit, model="lenet5")


@pytest.mark.parametrize("server", ["127.0.0.1:1", "http://127.0.0.1:1"])
def test_nobody_there_is_unavailable(server: str) -> None:
    with Client(server) as client, pytest.raises(errors.Unavailable):
        client.models()


def test_authorities_are_read_for_tls_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take 20 ms."""

    def refuse(**_: object) -> NoReturn:
        raise AssertionError("the authorities were read")

    monkeypatch.setattr(ssl, "create_default_context", refuse)
    Client("http://127.0.0.1:9").close()
    with pytest.raises(AssertionError, match="were read"):
        Client("https://127.0.0.1:9")


def test_a_file_that_is_not_there_is_a_bad_image(client: Client, tmp_path: Path) -> None:
    with pytest.raises(errors.BadImage, match="no-such-file"):
        client.classify(tmp_path / "no-such-file.png", model="lenet5")


def test_another_server_is_named_as_such(lenet_gateway: Gateway) -> None:
    with Client(f"{lenet_gateway.http}/elsewhere") as client, pytest.raises(errors.ConvoyError):
        client.models()


def test_channels_are_connections_that_take_turns(lenet_gateway: Gateway, digit: bytes) -> None:
    def connections() -> int:
        """Open ones of this machine's clients to the gateway, over IPv4 or IPv6."""
        port = int(lenet_gateway.grpc.rpartition(":")[2])
        tables = [Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")]
        return sum(len(re.findall(rf":{port:04X} 01 ", table)) for table in tables)

    before = connections()
    with Client(lenet_gateway.grpc, channels=3) as client:
        for _ in range(3):
            assert client.classify(digit, model="lenet5").best.label == "7"
        assert connections() == before + 3
    with pytest.raises(errors.InvalidRequest, match="at least 1"):
        Client(lenet_gateway.grpc, channels=0)
