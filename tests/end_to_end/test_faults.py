"""Triton breaks while requests run: clients get errors, the gateway survives and serves again.

Each test prints a row of the table in docs/reliability.md.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from tritonclient.grpc import InferenceServerClient

from convoy import Client, errors
from convoy.transports import from_rpc_error
from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc
from tests.conftest import RunningGateway, serving
from tests.end_to_end.load import load, nothing_leaks
from tests.end_to_end.relay import Relay, relay_to
from tests.loopback import wait_for

Serve = Callable[..., Any]
Note = Callable[..., None]

AWAY = {"RUNNER_UNAVAILABLE", "MODEL_NOT_READY"}


@pytest.fixture(scope="module")
def own_triton(
    shipped_lenet5: Path, tritonserver: Path, small_digit: bytes, tmp_path_factory: Any
) -> Iterator[RunningGateway]:
    """A gateway with its own Triton, which has seen load, and leaves nothing behind at its end."""
    log_path = tmp_path_factory.mktemp("own") / "gateway.log"
    options = [f"--repository={shipped_lenet5.parent}", "--models=lenet5", "--runner=triton-local"]
    with serving(log_path, *options) as gateway:
        gateway.wait_until_ready()
        with load(gateway, small_digit):
            pass
        yield gateway
        assert gateway.stop() == 0
        assert not list(Path("/dev/shm").glob(f"convoy-{gateway.process.pid}-*"))


@pytest.fixture(scope="module")
def relay(own_triton: RunningGateway) -> Iterator[Relay]:
    """A relay to that Triton."""
    with relay_to(read_address(find_tritonserver(own_triton.process.pid))) as relay:
        yield relay


@pytest.fixture(scope="module")
def far_triton(relay: Relay, small_digit: bytes, tmp_path_factory: Any) -> Iterator[RunningGateway]:
    """A gateway whose Triton is at the end of a relay."""
    log_path = tmp_path_factory.mktemp("far") / "gateway.log"
    with serving(log_path, f"--triton={relay.address}", "--models=lenet5") as gateway:
        gateway.wait_until_ready()
        with load(gateway, small_digit):
            pass
        yield gateway


def find_tritonserver(pid: int) -> int:
    """Returns the process id of the child that runs the tritonserver."""
    for path in Path("/proc", str(pid), "task").glob("*/children"):
        for child in path.read_text().split():
            if "tritonserver" in Path("/proc", child, "exe").resolve().name:
                return int(child)
    raise AssertionError("no tritonserver runs")


def read_address(tritonserver_pid: int) -> str:
    match = re.search(r"--grpc-port=(\d+)", Path(f"/proc/{tritonserver_pid}/cmdline").read_text())
    assert match
    return f"127.0.0.1:{match[1]}"


def ask_without_deadline(gateway: Any, image: bytes, outcomes: list[str]) -> list[threading.Thread]:
    """Starts one client per wire that would wait forever."""

    def ask_over_grpc() -> None:
        request = pb.ClassifyRequest(model="lenet5", image=pb.Image(content=image))
        with grpc.insecure_channel(gateway.grpc) as channel:
            try:
                stub = classifier_pb2_grpc.ImageClassifierStub(channel)
                outcomes.append(stub.Classify(request).classes[0].label)
            except grpc.RpcError as error:
                outcomes.append(from_rpc_error(error).reason)

    def ask_over_http() -> None:
        url = f"{gateway.http}/v1/models/lenet5:classify"
        answer = httpx.post(url, content=image, timeout=None).json()
        outcomes.append(answer["reason"] if "reason" in answer else answer["classes"][0]["label"])

    threads = [threading.Thread(target=ask) for ask in (ask_over_grpc, ask_over_http)]
    for thread in threads:
        thread.start()
    return threads


def test_a_killed_tritonserver_is_unavailable_and_then_back(
    own_triton: RunningGateway, small_digit: bytes, note: Note
) -> None:
    pid = own_triton.process.pid
    with nothing_leaks(own_triton):
        with load(own_triton, small_digit) as running:
            first, killed_s = find_tritonserver(pid), time.monotonic()
            os.kill(first, signal.SIGKILL)
            wait_for(lambda: bool(running.seen()))
            assert httpx.get(f"{own_triton.http}/livez").status_code == 200
            wait_for(lambda: running.is_served(killed_s))
        assert running.seen() <= AWAY
        assert find_tritonserver(pid) != first
        own_triton.wait_until_ready()
    note("tritonserver killed", "triton-local", running, killed_s)


def test_a_tritonserver_that_is_stopped_for_a_moment_goes_on(
    own_triton: RunningGateway, small_digit: bytes, note: Note
) -> None:
    """Patient clients get an answer; others get an error when their deadline passes."""
    server = find_tritonserver(own_triton.process.pid)
    with (
        nothing_leaks(own_triton),
        load(own_triton, small_digit, clients_per_wire=1) as patient,
        load(own_triton, small_digit, clients_per_wire=1, timeout_s=0.5) as hurried,
    ):
        stopped_s = time.monotonic()
        os.kill(server, signal.SIGSTOP)
        time.sleep(2)
        os.kill(server, signal.SIGCONT)
        going_s = time.monotonic()
        wait_for(lambda: patient.is_served(going_s) and hurried.is_served(going_s))
    assert patient.seen() == set()
    assert "DEADLINE_EXCEEDED" in hurried.seen() <= {"DEADLINE_EXCEEDED", "OVERLOADED"}
    assert find_tritonserver(own_triton.process.pid) == server
    note("tritonserver stopped for 2 s, clients wait 20 s", "triton-local", patient, stopped_s)
    note("tritonserver stopped for 2 s, clients wait 0.5 s", "triton-local", hurried, stopped_s)


def test_a_tritonserver_that_hangs_is_found_and_replaced(
    own_triton: RunningGateway, small_digit: bytes, note: Note
) -> None:
    pid = own_triton.process.pid
    endless: list[str] = []
    with nothing_leaks(own_triton):
        with load(own_triton, small_digit, timeout_s=60) as running:
            first, stopped_s = find_tritonserver(pid), time.monotonic()
            os.kill(first, signal.SIGSTOP)
            threads = ask_without_deadline(own_triton, small_digit, endless)
            wait_for(lambda: not is_ready(own_triton))
            wait_for(lambda: bool(running.seen()) and running.is_served(stopped_s))
            for thread in threads:
                thread.join(30)
        # On a busy machine one may come when the hang has been found, and wait for the next.
        assert len(endless) == 2 and set(endless) <= {"RUNNER_UNAVAILABLE", "7"}
        assert running.seen() <= AWAY
        assert running.longest_s() < 30
        assert find_tritonserver(pid) != first
    note("tritonserver stopped for good", "triton-local", running, stopped_s)


def is_ready(gateway: RunningGateway) -> bool:
    return httpx.get(f"{gateway.http}/readyz").status_code == 200


def test_a_model_that_somebody_unloads_comes_back_and_no_request_is_lost(
    own_triton: RunningGateway, small_digit: bytes, note: Note
) -> None:
    address = read_address(find_tritonserver(own_triton.process.pid))
    with nothing_leaks(own_triton), load(own_triton, small_digit) as running:
        unloaded_s = time.monotonic()
        with InferenceServerClient(address) as stranger:
            stranger.unload_model("lenet5.v1")
        own_triton.wait_for(lambda: "lenet5.v1 is no longer loaded" in own_triton.log())
        wait_for(lambda: running.is_served(unloaded_s + 1))
    assert running.seen() == set()
    note("model unloaded behind the gateway's back", "triton-local", running, unloaded_s)


def test_a_slow_triton_costs_those_who_cannot_wait(
    far_triton: RunningGateway, relay: Relay, small_digit: bytes, note: Note
) -> None:
    with (
        nothing_leaks(far_triton),
        load(far_triton, small_digit, clients_per_wire=1) as patient,
        load(far_triton, small_digit, clients_per_wire=1, timeout_s=0.5) as hurried,
    ):
        slow_s = time.monotonic()
        relay.delay_s = 0.5
        wait_for(lambda: bool(hurried.seen()))
        time.sleep(3)
        relay.delay_s = 0.0
        quick_s = time.monotonic()
        wait_for(lambda: patient.is_served(quick_s) and hurried.is_served(quick_s))
    assert patient.seen() == set()
    assert hurried.seen() <= {"DEADLINE_EXCEEDED", "OVERLOADED"}
    note("Triton slow, 0.5 s each way for 3 s, clients wait 20 s", "--triton", patient, slow_s)
    note("Triton slow, 0.5 s each way for 3 s, clients wait 0.5 s", "--triton", hurried, slow_s)


def test_a_triton_that_refuses_is_unavailable_and_then_back(
    far_triton: RunningGateway, relay: Relay, small_digit: bytes, note: Note
) -> None:
    with nothing_leaks(far_triton):
        with load(far_triton, small_digit) as running:
            refused_s = time.monotonic()
            relay.refuse()
            far_triton.wait_for(lambda: not is_ready(far_triton))
            time.sleep(1)
            relay.accept()
            wait_for(lambda: running.is_served(refused_s + 1))
        assert running.seen() <= AWAY
    note("Triton refuses connections", "--triton", running, refused_s)


@pytest.mark.slow
def test_a_triton_that_falls_silent_is_given_up_even_without_a_deadline(
    far_triton: RunningGateway, relay: Relay, small_digit: bytes, note: Note
) -> None:
    endless: list[str] = []
    with nothing_leaks(far_triton):
        with load(far_triton, small_digit, timeout_s=60) as running:
            silent_s = time.monotonic()
            relay.is_silent = True
            threads = ask_without_deadline(far_triton, small_digit, endless)
            for thread in threads:
                thread.join(60)
            relay.cut()
            relay.is_silent = False
            heard_s = time.monotonic()
            wait_for(lambda: running.is_served(heard_s))
        assert endless == ["RUNNER_UNAVAILABLE"] * 2
        assert running.seen() <= AWAY
        assert running.longest_s() < 30
    note("Triton takes everything and answers nothing", "--triton", running, silent_s)


def test_a_triton_that_is_not_there_is_waited_for(serve: Serve, digit: bytes) -> None:
    gateway = serve("--triton=127.0.0.1:1")
    gateway.wait_for(lambda: "127.0.0.1:1" in httpx.get(f"{gateway.http}/readyz").text)
    assert httpx.get(f"{gateway.http}/readyz").status_code == 503
    with Client(gateway.http) as client, pytest.raises(errors.ConvoyError) as failure:
        client.classify(digit, model="lenet5")
    assert failure.value.reason == "RUNNER_UNAVAILABLE"
