"""Two gateways behind a real haproxy with the configuration of deploy/haproxy; one is killed.

Slow; needs Debian's haproxy: apt-get install haproxy.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.load import load
from tests.loopback import answers, free_port, wait_for

CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "haproxy" / "haproxy.cfg"
Serve = Callable[..., Any]


@dataclass
class Proxy:
    http: str
    grpc: str


@contextlib.contextmanager
def haproxy_before(one: Any, two: Any) -> Iterator[Proxy]:
    program = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if not program:
        pytest.skip("haproxy is not installed: apt-get install haproxy")
    http, grpc = (f"127.0.0.1:{free_port()}" for _ in range(2))
    variables = {"HTTP_ADDRESS": http, "GRPC_ADDRESS": grpc}
    for name, gateway in (("ONE", one), ("TWO", two)):
        host, _, port = gateway.admin.removeprefix("http://").rpartition(":")
        variables |= {
            f"{name}_HTTP": gateway.http.removeprefix("http://"),
            f"{name}_GRPC": gateway.grpc,
            f"{name}_HOST": host,
            f"{name}_OPERATOR": port,
        }
    process = subprocess.Popen([program, "-db", "-f", str(CONFIG)], env=variables)
    try:
        wait_for(lambda: answers(f"http://{http}/readyz"))
        yield Proxy(f"http://{http}", grpc)
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.slow
def test_of_a_gateway_that_is_killed_only_what_was_in_flight_there_is_lost(
    serve: Serve, small_digit: bytes
) -> None:
    one, two = (serve("--models=lenet5") for _ in range(2))
    for gateway in (one, two):
        gateway.wait_until_ready()
    clients = 8
    with (
        haproxy_before(one, two) as proxy,
        load(proxy, small_digit, clients_per_wire=clients) as running,
    ):
        wait_for(lambda: running.counts().total() > 200)
        os.kill(one.process.pid, signal.SIGKILL)
        killed_s = time.monotonic()
        wait_for(lambda: running.is_served(killed_s + 2))
    lost = running.counts().total() - running.counts()["7"]
    # Each client has one request at a time, and about half of them were with the one killed.
    assert lost <= clients, running.counts()
    late = running.counts(since_s=killed_s + 2)
    assert set(late) == {"7"}, "once the proxy has checked, no request is lost any more"


@pytest.mark.slow
def test_a_gateway_that_gets_sigterm_loses_nothing(serve: Serve, small_digit: bytes) -> None:
    one, two = (serve("--models=lenet5", "--not-ready-s=3") for _ in range(2))
    for gateway in (one, two):
        gateway.wait_until_ready()
    with haproxy_before(one, two) as proxy, load(proxy, small_digit) as running:
        wait_for(lambda: running.counts().total() > 100)
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(60) == 0
        stopped_s = time.monotonic()
        wait_for(lambda: running.is_served(stopped_s))
    assert running.seen() == set()
