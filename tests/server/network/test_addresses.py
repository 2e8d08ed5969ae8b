"""Where doors listen."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from server.errors import StartFailed
from server.network.addresses import is_local, listen, remove_unused_socket
from tests.conftest import RunningGateway


def test_a_port_that_is_taken_is_told() -> None:
    with listen("127.0.0.1:0", "--http-address") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartFailed, match=r"--grpc-address .*in use"):
            listen(f"127.0.0.1:{port}", "--grpc-address")


def test_a_file_that_is_no_socket_is_left_as_it_is(tmp_path: Path) -> None:
    keys_path = tmp_path / "keys.toml"
    keys_path.write_text("not to be lost")
    link_path = tmp_path / "link"
    link_path.symlink_to(keys_path)
    for path in (keys_path, link_path, tmp_path):
        with pytest.raises(StartFailed, match=r"is no socket is there.* left as it is"):
            listen(f"unix:{path}", "--http-address")
    assert keys_path.read_text() == "not to be lost"


def test_only_a_socket_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/http"
    with listen(address, "--http-address"):
        with pytest.raises(StartFailed, match=r"in use\): stop the program"):
            listen(address, "--http-address")
        with pytest.raises(OSError, match="in use"):
            remove_unused_socket(f"{tmp_path}/http")
    listen(address, "--http-address").close()
    remove_unused_socket(f"{tmp_path}/http")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("unix:/nowhere/http", r"No such file or directory\): create its folder"),
        ("unix:/dev/null/http", r"Not a directory\): give a path below a folder"),
        (f"unix:/tmp/{'x' * 103}", r"File name too long\): give a path of at most 107 bytes"),
        ("192.0.2.1:0", r"Cannot assign requested address.*\): give an address of this machine"),
        ("nowhere.invalid:0", r"\): give an(other| address or a name of this machine)"),
    ],
)
def test_what_cannot_be_listened_on_has_its_remedy(address: str, message: str) -> None:
    with pytest.raises(StartFailed, match=message):
        listen(address, "--http-address")


def test_any_address_of_ipv6_is_one_of_ipv4_too_on_each_port(
    serve: Callable[..., RunningGateway], repository: Path
) -> None:
    addresses = [f"--{api}-address=[::]:0" for api in ("http", "grpc", "metrics")]
    gateway = serve(f"--repository={repository}", "--allow-unauthenticated", *addresses)
    for server in (gateway.http, gateway.grpc, gateway.admin):
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, int(server.rpartition(":")[2])), 10).close()


@pytest.mark.parametrize(
    ("address", "is_this_machines"),
    [
        ("127.0.0.1:80", True),
        ("127.1.2.3:80", True),
        ("[::1]:80", True),
        ("localhost:80", True),
        ("unix:/run/convoy.sock", True),
        ("0.0.0.0:80", False),
        ("[::]:80", False),
        ("192.168.1.4:80", False),
        ("localhost.example.com:80", False),
    ],
)
def test_which_addresses_are_this_machines_alone(address: str, is_this_machines: bool) -> None:
    assert is_local(address) is is_this_machines
