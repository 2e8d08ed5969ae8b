"""Where doors listen."""

from __future__ import annotations

import pytest

from server.errors import StartFailed
from server.network.addresses import is_local, listen


def test_a_port_that_is_taken_is_told() -> None:
    with listen("127.0.0.1:0", "--http-address") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartFailed, match=r"--grpc-address .*in use"):
            listen(f"127.0.0.1:{port}", "--grpc-address")


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
