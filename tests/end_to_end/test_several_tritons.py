"""Several real Tritons behind one gateway: how requests spread, and what a lost Triton costs.

Each runs on a machine of its own, from `hosts`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.end_to_end.hosts import Host, hosts
from tests.end_to_end.load import load
from tests.end_to_end.relay import relay_to
from tests.loopback import wait_for

Serve = Callable[..., Any]
ServeTogether = Callable[..., Any]
StartTritonAt = Callable[..., contextlib.AbstractContextManager[Any]]

PORT = 18001  # the same on each machine, as a name with several addresses needs


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, shipped_lenet5: Path) -> Path:
    path = tmp_path_factory.mktemp("several") / "model_repository"
    shutil.copytree(shipped_lenet5, path / "lenet5.v1")
    return path


@pytest.fixture(scope="module")
def machines() -> Iterator[list[Host]]:
    with hosts(3) as running:
        yield running


@pytest.fixture(scope="module")
def tritons(
    start_triton_at: StartTritonAt, repository: Path, machines: list[Host]
) -> Iterator[dict[str, Any]]:
    """The running Tritons by address."""
    with contextlib.ExitStack() as running:
        yield {
            address_on(machine): running.enter_context(
                start_triton_at(repository, address_on(machine), machine.enter)
            )
            for machine in machines
        }


def address_on(machine: Host) -> str:
    return f"{machine.address}:{PORT}"


@pytest.fixture(scope="module")
def gateway(serve_together: ServeTogether, tritons: dict[str, Any]) -> Any:
    gateway = serve_together(f"--triton={','.join(tritons)}", "--unload-grace-s=1")
    gateway.wait_for(lambda: all(runner["is_reachable"] for runner in runners(gateway)))
    gateway.wait_until_ready()
    wait_for(lambda: min(images(gateway).values(), default=0) >= 1)  # each has proven the version
    return gateway


def runners(gateway: Any) -> list[dict[str, Any]]:
    accepted = {"accept": "application/json"}
    return list(httpx.get(f"{gateway.admin}/statusz", headers=accepted).json()["runners"])


def images(gateway: Any, outcome: str = "OK") -> Counter[str]:
    """Counts the images of each runner that had an outcome."""
    return Counter(
        {runner["name"]: runner["images"].get(outcome, 0) for runner in runners(gateway)}
    )


def reachable(gateway: Any) -> set[str]:
    return {runner["name"] for runner in runners(gateway) if runner["is_reachable"]}


def test_the_load_spreads_evenly(gateway: Any, small_digit: bytes) -> None:
    before = images(gateway)
    with load(gateway, small_digit) as running:
        wait_for(lambda: running.counts().total() >= 200)
    shares = images(gateway) - before
    assert running.seen() == set()
    assert min(shares.values()) > 0.8 * max(shares.values()), shares


def test_a_slow_triton_gets_fewer_requests(
    serve: Serve, tritons: dict[str, Any], small_digit: bytes
) -> None:
    first, second, third = tritons
    with relay_to(third) as relay:
        gateway = serve(f"--triton={first},{second},{relay.address}")
        gateway.wait_until_ready()
        wait_for(lambda: min(images(gateway).values(), default=0) >= 1)
        relay.delay_s = 0.1
        before = images(gateway)
        with load(gateway, small_digit) as running:
            wait_for(lambda: running.counts().total() >= 200)
        shares = images(gateway) - before
        assert running.seen() == set()
        assert shares[relay.address] < 0.5 * min(shares[first], shares[second]), shares


def test_a_killed_triton_loses_no_request_and_comes_back(
    gateway: Any, tritons: dict[str, Any], small_digit: bytes
) -> None:
    victim = next(iter(tritons))
    given = images(gateway).total()
    with load(gateway, small_digit) as running:
        os.kill(tritons[victim]._process.pid, signal.SIGKILL)
        wait_for(lambda: victim not in reachable(gateway))
        lost_s = time.monotonic()
        wait_for(lambda: victim in reachable(gateway))
        back = images(gateway)[victim]
        wait_for(lambda: images(gateway)[victim] > back + 20)
        wait_for(lambda: running.is_served(lost_s))
    assert running.seen() == set()
    # Besides those of the load, images prove the version again.
    twice = images(gateway).total() - given - running.counts().total()
    assert 0 <= twice <= 10, "a request ran twice that was not in flight at the victim"


@pytest.mark.slow
def test_a_pulled_cable_is_detected(
    gateway: Any, tritons: dict[str, Any], machines: list[Host], small_digit: bytes
) -> None:
    if not machines[0].namespace:
        pytest.skip("needs network namespaces: root, and ip")
    with load(gateway, small_digit, timeout_s=60) as running:
        pulled_s = time.monotonic()
        with machines[0].unplugged():
            wait_for(lambda: address_on(machines[0]) not in reachable(gateway))
            wait_for(lambda: running.is_served(pulled_s))
        back = images(gateway)[address_on(machines[0])]
        wait_for(lambda: images(gateway)[address_on(machines[0])] > back + 20)
    assert running.seen() == set(), "requests fail over once the silence is detected"


@pytest.mark.slow
def test_a_silent_connection_is_detected(
    serve: Serve, tritons: dict[str, Any], small_digit: bytes
) -> None:
    first, second, third = tritons
    with relay_to(third) as relay:
        gateway = serve(f"--triton={first},{second},{relay.address}")
        gateway.wait_until_ready()
        wait_for(lambda: min(images(gateway).values(), default=0) >= 1)
        with load(gateway, small_digit, timeout_s=60) as running:
            relay.is_silent = True
            pulled_s = time.monotonic()
            wait_for(lambda: relay.address not in reachable(gateway))
            wait_for(lambda: running.is_served(pulled_s))
        assert running.seen() == set(), "requests fail over once the silence is detected"


def test_a_new_version_rolls_over_all_of_them_and_two_gateways(
    gateway: Any, serve: Serve, tritons: dict[str, Any], repository: Path, small_digit: bytes
) -> None:
    second = serve(f"--triton={','.join(tritons)}", "--unload-grace-s=1")
    second.wait_until_ready()
    with load(gateway, small_digit) as one, load(second, small_digit) as two:
        staging = repository / "lenet5.v2.staging"
        shutil.copytree(repository / "lenet5.v1", staging)
        staging.rename(repository / "lenet5.v2")
        wait_for(lambda: default_version(gateway) == default_version(second) == "2")
        time.sleep(3)  # longer than the grace period: both unload the old version
        assert [each.counts()["7"] > 0 for each in (one, two)] == [True, True]
    assert one.seen() == two.seen() == set()


def default_version(gateway: Any) -> str:
    return str(httpx.get(f"{gateway.http}/v1/models/lenet5").json()["version"])


def test_added_and_removed_addresses_of_a_name_are_noticed(
    tmp_path: Path, tritons: dict[str, Any], machines: list[Host], small_digit: bytes
) -> None:
    first, second, _ = machines
    named = tmp_path / "hosts"
    named.write_text(render_hosts(first))
    with serving_with_hosts(named, tmp_path, f"--triton=tritons:{PORT}") as gateway:
        gateway.wait_until_ready()
        assert {runner["name"] for runner in runners(gateway)} == {address_on(first)}
        with load(gateway, small_digit) as running:
            named.write_text(render_hosts(first, second))
            wait_for(lambda: images(gateway)[address_on(second)] > 20)
            named.write_text(render_hosts(second))
            wait_for(
                lambda: {runner["name"] for runner in runners(gateway)} == {address_on(second)}
            )
            moved_s = time.monotonic()
            wait_for(lambda: running.is_served(moved_s))
        assert running.seen() == set()


def render_hosts(*machines: Host) -> str:
    """Returns an /etc/hosts that gives a name these addresses."""
    return "127.0.0.1 localhost\n" + "".join(f"{machine.address} tritons\n" for machine in machines)


class Gateway:
    def __init__(self, process: subprocess.Popen[str], log_path: Path) -> None:
        self.process = process
        banner = ""
        assert process.stdout
        for line in process.stdout:
            banner += line
            if "/metrics" in line:
                break
        found = dict(re.findall(r"(HTTP|gRPC|admin) +(\S+)", banner))
        assert found, log_path.read_text()
        self.http, self.grpc = found["HTTP"], found["gRPC"]
        self.admin = found["admin"].removesuffix("/metrics")

    def wait_until_ready(self) -> None:
        wait_for(lambda: httpx.get(f"{self.http}/readyz").status_code == 200)


@contextlib.contextmanager
def serving_with_hosts(hosts: Path, tmp_path: Path, *arguments: str) -> Iterator[Gateway]:
    """Runs a gateway that sees the file as /etc/hosts."""
    log_path = tmp_path / "gateway.log"
    ports = [f"--{api}-address=127.0.0.1:0" for api in ("http", "grpc", "metrics")]
    serve = [sys.executable, "-m", "convoy.cli", "serve", *ports, *arguments]
    mount = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"']
    with log_path.open("w") as log:
        process = subprocess.Popen(
            [*mount, str(hosts), *serve],
            cwd=Path(__file__).resolve().parents[2],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        yield Gateway(process, log_path)
    finally:
        process.terminate()
        process.wait(60)
        assert process.stdout
        process.stdout.close()
