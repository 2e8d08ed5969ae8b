"""tritonserver dies while requests run: UNAVAILABLE, then recovery; the gateway lives on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from convoy import Client, errors

Serve = Callable[..., Any]


def tritonserver_of(pid: int) -> int:
    """The child whose program is the tritonserver."""
    for path in Path("/proc", str(pid), "task").glob("*/children"):
        for child in path.read_text().split():
            if "tritonserver" in Path("/proc", child, "exe").resolve().name:
                return int(child)
    raise AssertionError("no tritonserver runs")


def test_a_killed_tritonserver_is_unavailable_and_then_back(
    serve: Serve, repository: Path, digit: bytes, tritonserver: Path
) -> None:
    gateway = serve(f"--repository={repository}", "--runner=triton-local")
    gateway.wait_until_ready()
    kinds: list[str] = []
    with Client(gateway.grpc, timeout_s=10) as client:
        for _ in range(20):
            assert client.classify(digit, model="lenet5").best.label == "7"
        first = tritonserver_of(gateway.process.pid)
        os.kill(first, signal.SIGKILL)
        deadline_s = time.monotonic() + 30
        while time.monotonic() < deadline_s:
            try:
                assert client.classify(digit, model="lenet5").best.label == "7"
            except errors.Unavailable as error:
                kinds.append(error.reason)
                assert httpx.get(f"{gateway.http}/livez").status_code == 200
                time.sleep(0.01)
            else:
                if kinds:
                    break
    assert kinds and set(kinds) <= {"RUNNER_UNAVAILABLE", "MODEL_NOT_READY"}, kinds
    assert tritonserver_of(gateway.process.pid) != first
    gateway.wait_until_ready()
    assert gateway.stop() == 0
    assert not list(Path("/dev/shm").glob(f"convoy-{gateway.process.pid}-*"))


def test_a_triton_that_is_not_there_is_waited_for(serve: Serve, digit: bytes) -> None:
    gateway = serve("--triton=127.0.0.1:1")
    gateway.wait_for(lambda: "127.0.0.1:1" in httpx.get(f"{gateway.http}/readyz").text)
    assert httpx.get(f"{gateway.http}/readyz").status_code == 503
    with Client(gateway.http) as client, pytest.raises(errors.ConvoyError) as failure:
        client.classify(digit, model="lenet5")
    assert failure.value.reason == "RUNNER_UNAVAILABLE"
