"""TLS and mutual TLS on both wires of a real gateway, and certificates that change under way."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from convoy import Client, errors
from server.errors import StartFailed
from server.http_api.server import HttpServer
from server.network.tls import Tls
from server.settings import Settings

WIRES = ("grpc", "http")
COMPLAINT = "the certificate was not reloaded"


@dataclass(frozen=True)
class Files:
    """Where one authority's certificate lies, and one that it has signed, with its key."""

    ca: Path
    certificate: Path
    key: Path


def issue(folder: Path, ca: trustme.CA | None = None) -> Files:
    ca = ca or trustme.CA()
    folder.mkdir(exist_ok=True)
    files = Files(folder / "ca.pem", folder / "certificate.pem", folder / "key.pem")
    leaf = ca.issue_cert("localhost", "127.0.0.1")
    ca.cert_pem.write_to_path(str(files.ca))
    leaf.private_key_pem.write_to_path(str(files.key))
    files.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    return files


def options_of(repository: Path, files: Files) -> list[str]:
    return [
        f"--repository={repository}",
        "--models=lenet5",
        f"--tls-certificate={files.certificate}",
        f"--tls-key={files.key}",
        "--header-timeout-s=2",
    ]


def wait_until_ready(gateway: Any) -> None:
    """The admin port answers the probes without TLS."""
    gateway.wait_for(lambda: httpx.get(f"{gateway.admin}/readyz").status_code == 200)


def server_of(gateway: Any, wire: str) -> str:
    return f"grpcs://{gateway.grpc}" if wire == "grpc" else str(gateway.http)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return issue(tmp_path_factory.mktemp("shown"))


@pytest.fixture(scope="module")
def encrypted(serve_together: Callable[..., Any], shipped_lenet5: Path, shown: Files) -> Any:
    gateway = serve_together(*options_of(shipped_lenet5.parent, shown))
    wait_until_ready(gateway)
    return gateway


@dataclass(frozen=True)
class Mutual:
    gateway: Any
    shown: Files
    clients: Files


@pytest.fixture(scope="module")
def mutual(
    serve_together: Callable[..., Any],
    shipped_lenet5: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Mutual]:
    """On an address that anybody reaches, which a client's certificate allows."""
    folder = tmp_path_factory.mktemp("mutual")
    shown, clients = issue(folder / "shown"), issue(folder / "clients")
    gateway = serve_together(
        *options_of(shipped_lenet5.parent, shown), f"--tls-client-ca={clients.ca}"
    )
    wait_until_ready(gateway)
    yield Mutual(gateway, shown, clients)


@pytest.mark.parametrize("wire", WIRES)
def test_a_client_that_trusts_the_authority_is_answered(
    encrypted: Any, shown: Files, wire: str, digit: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(server_of(encrypted, wire), ca=shown.ca) as client:
        assert client.classify(digit, model="lenet5").best.label == "7"
    monkeypatch.setenv("CONVOY_CA", str(shown.ca))
    with Client(server_of(encrypted, wire)) as client:
        assert client.models()


@pytest.mark.parametrize("wire", WIRES)
def test_a_client_that_trusts_others_refuses(encrypted: Any, wire: str, tmp_path: Path) -> None:
    other = issue(tmp_path / "other")
    for ca in (other.ca, None):
        client = Client(server_of(encrypted, wire), ca=ca, timeout_s=5)
        with client, pytest.raises(errors.Unavailable):
            client.models()


@pytest.mark.parametrize("wire", WIRES)
def test_a_client_without_tls_gets_nothing(encrypted: Any, wire: str) -> None:
    plain = {"grpc": encrypted.grpc, "http": encrypted.http.replace("https://", "http://")}
    with Client(plain[wire], timeout_s=5) as client, pytest.raises(errors.Unavailable):
        client.models()


def test_old_versions_of_tls_are_refused(encrypted: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    for address in (encrypted.http.removeprefix("https://"), encrypted.grpc):
        host, port = address.split(":")
        with (
            socket.create_connection((host, int(port)), timeout=5) as connection,
            pytest.raises(ssl.SSLError),
        ):
            context.wrap_socket(connection)


def test_a_handshake_that_never_ends_is_closed(encrypted: Any) -> None:
    began_s = time.monotonic()
    with contextlib.ExitStack() as open_ones:
        for address in (encrypted.http.removeprefix("https://"), encrypted.grpc):
            host, port = address.split(":")
            connection = socket.create_connection((host, int(port)), timeout=10)
            open_ones.enter_context(connection).sendall(b"\x16\x03\x01")
            open_ones.callback(lambda heard: heard(1) == b"" or pytest.fail(), connection.recv)
    assert time.monotonic() - began_s < 5


@pytest.mark.parametrize("wire", WIRES)
def test_with_a_client_ca_only_its_clients_are_let_in(
    mutual: Mutual, wire: str, digit: bytes, tmp_path: Path
) -> None:
    server, ca = server_of(mutual.gateway, wire), mutual.shown.ca
    known = mutual.clients
    with Client(server, ca=ca, certificate=known.certificate, key=known.key) as client:
        assert client.classify(digit, model="lenet5").best.label == "7"
    stranger = issue(tmp_path / "stranger")
    for shown, key in ((None, None), (stranger.certificate, stranger.key)):
        client = Client(server, ca=ca, timeout_s=5, certificate=shown, key=key)
        with client, pytest.raises(errors.Unavailable):
            client.models()


@pytest.mark.parametrize("wire", WIRES)
def test_certificates_are_read_anew_on_sighup_without_dropping_a_connection(
    mutual: Mutual, tmp_path: Path, wire: str, digit: bytes
) -> None:
    """The gateway's own, and whose clients it lets in; a broken file changes nothing."""
    gateway, server = mutual.gateway, server_of(mutual.gateway, wire)
    shown, clients = mutual.shown, mutual.clients
    old_shown, old_clients = copy_of(shown, tmp_path / "shown"), copy_of(clients, tmp_path / "old")

    def may(ca: Path, shows: Files) -> bool:
        with client(ca, shows) as asking:
            try:
                return bool(asking.models())
            except errors.Unavailable:
                return False

    def client(ca: Path, shows: Files) -> Client:
        return Client(server, ca=ca, certificate=shows.certificate, key=shows.key, timeout_s=5)

    with client(old_shown.ca, old_clients) as open_one:
        assert open_one.classify(digit, model="lenet5").best.label == "7"
        issue(shown.ca.parent)
        issue(clients.ca.parent)
        gateway.process.send_signal(signal.SIGHUP)
        gateway.wait_for(lambda: may(shown.ca, clients))
        assert not may(old_shown.ca, clients)
        assert not may(shown.ca, old_clients)
        # Over a new connection it could not.
        assert open_one.classify(digit, model="lenet5").best.label == "7"
    sound = shown.certificate.read_bytes()
    shown.certificate.write_text("broken")
    complaints = gateway.log().count(COMPLAINT)
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_for(lambda: gateway.log().count(COMPLAINT) > complaints)
    assert may(shown.ca, clients)
    shown.certificate.write_bytes(sound)


def copy_of(files: Files, folder: Path) -> Files:
    folder.mkdir()
    copies = Files(*(folder / path.name for path in (files.ca, files.certificate, files.key)))
    for name in ("ca", "certificate", "key"):
        getattr(copies, name).write_bytes(getattr(files, name).read_bytes())
    return copies


# ---------------------------------------------------------------- without a gateway


async def test_nobody_who_connects_while_a_certificate_changes_goes_without_an_answer(
    shown: Files,
) -> None:
    async def say_hello(request: Request) -> Response:
        return PlainTextResponse("hello")

    async def ask_all_the_time() -> int:
        answers = 0
        while renewing:
            async with httpx.AsyncClient(verify=trusting, timeout=5) as client:
                answers += (await client.get(server.url)).text == "hello"
        return answers

    tls = Tls(shown.certificate, shown.key)
    hello = Starlette(routes=[Route("/", say_hello)])
    server = HttpServer(hello, "127.0.0.1:0", "--http-address", Settings(), tls.http)
    trusting = ssl.create_default_context(cafile=shown.ca)
    renewing = True
    asking = [asyncio.create_task(ask_all_the_time()) for _ in range(6)]
    for _ in range(100):
        tls.reload()
        await server.renew(tls.http)
        await asyncio.sleep(0.01)
    renewing = False
    assert sum(await asyncio.gather(*asking)) > 20
    await server.stop()


def test_files_that_are_no_certificate_and_key_are_told_in_one_line(
    shown: Files, tmp_path: Path
) -> None:
    other, text, locked = issue(tmp_path / "other"), tmp_path / "text.pem", tmp_path / "locked.pem"
    text.write_text("no certificate")
    lock(shown.key, locked)
    none = tmp_path / "none.pem"
    for named, files in (
        (text, (text, shown.key)),
        (text, (shown.certificate, text)),
        (other.key, (shown.certificate, other.key)),
        (locked, (shown.certificate, locked)),
        (text, (shown.certificate, shown.key, text)),
        (none, (none, shown.key)),
        (none, (shown.certificate, none)),
        (none, (shown.certificate, shown.key, none)),
    ):
        with pytest.raises(StartFailed) as failure:
            Tls(*files)
        assert str(named) in str(failure.value) and "\n" not in str(failure.value)


def lock(key: Path, locked: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    locked.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )


@pytest.mark.parametrize("server", ["grpcs://localhost:1", "https://localhost:1"])
def test_the_client_names_a_file_that_it_cannot_use(
    server: str, shown: Files, tmp_path: Path
) -> None:
    with pytest.raises(errors.InvalidRequest, match=r"none\.pem"):
        Client(server, ca=tmp_path / "none.pem")
    with pytest.raises(errors.InvalidRequest, match="give both"):
        Client(server, ca=shown.ca, certificate=shown.certificate)


@pytest.mark.parametrize("server", ["localhost:1", "http://localhost:1"])
def test_the_client_uses_no_certificate_in_the_clear(server: str, shown: Files) -> None:
    with pytest.raises(errors.InvalidRequest, match="grpcs://"):
        Client(server, ca=shown.ca)
