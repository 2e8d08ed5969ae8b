"""How a gateway starts and stops: an error is one sentence, and nothing is left behind."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from convoy import Client

Serve = Callable[..., Any]

# Concurrent requests to ResNet-18: work for seconds, so that a test can observe the drain.
REQUESTS = 48


@pytest.fixture
def serve(serve: Serve) -> Serve:
    """As users start a gateway: it imports everything itself."""
    return partial(serve, is_forked=False)


def refused(*arguments: str) -> str:
    """Returns the error of a gateway that cannot start."""
    command = [sys.executable, "-m", "convoy.cli", "serve", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1
    assert len(lines) == 1 and lines[0].startswith("convoy serve: "), done.stderr
    return lines[0]


@pytest.mark.parametrize("api", ["http", "grpc", "metrics"])
def test_a_port_in_use_is_one_sentence(repository: Path, api: str) -> None:
    ports = dict.fromkeys(("http", "grpc", "metrics"), "127.0.0.1:0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports[api] = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = [f"--{name}-address={address}" for name, address in ports.items()]
        message = refused(*flags, f"--repository={repository}")
    assert f"--{api}-address {ports[api]}" in message and "free port" in message


def test_a_missing_repository_is_one_sentence(tmp_path: Path) -> None:
    assert "export/build.py" in refused(f"--repository={tmp_path / 'nowhere'}")


def test_broken_folders_do_not_keep_the_others_from_serving(
    serve: Serve, repository: Path, digit: bytes, runner_name: str
) -> None:
    (repository / "empty.v1").mkdir()
    shutil.copytree(repository / "lenet5.v1", repository / "broken.v1")
    (repository / "broken.v1" / "config.pbtxt").write_text("backend: onnxruntime {")
    gateway = serve(f"--repository={repository}", f"--runner={runner_name}")
    gateway.wait_until_ready()
    answers = {
        name: httpx.post(f"{gateway.http}/v1/models/{name}:classify", content=digit)
        for name in ("lenet5", "empty", "broken")
    }
    assert answers["lenet5"].json()["classes"][0]["label"] == "7"
    for name in ("empty", "broken"):
        assert answers[name].status_code == 503
        assert answers[name].json()["reason"] == "MODEL_NOT_READY"
        assert f"{name}.v1" in answers[name].json()["detail"]
        assert "config.pbtxt" in answers[name].json()["detail"]


def descendants(pid: int) -> set[int]:
    pids: set[int] = set()
    for path in Path("/proc", str(pid), "task").glob("*/children"):
        for child in path.read_text().split():
            pids |= {int(child)} | descendants(int(child))
    return pids


def list_shared_memory(pid: int) -> list[Path]:
    return list(Path("/dev/shm").glob(f"convoy-{pid}-*"))


def test_sigterm_drains_and_leaves_nothing(
    serve: Serve, repository: Path, digit: bytes, runner_name: str
) -> None:
    gateway = serve(f"--repository={repository}", f"--runner={runner_name}")
    gateway.wait_until_ready()
    assert httpx.post(f"{gateway.http}/v1/models/lenet5:classify", content=digit).is_success
    family = descendants(gateway.process.pid)
    assert bool(family) == (runner_name == "triton-local")
    assert bool(list_shared_memory(gateway.process.pid)) == (runner_name == "triton-local")

    assert gateway.stop() == 0
    gateway_left = [pid for pid in family if Path("/proc", str(pid)).exists()]
    assert not gateway_left
    assert not list_shared_memory(gateway.process.pid)


def accepted(gateway: Any) -> int:
    """Counts the requests that are in flight or answered; the count never falls."""
    metrics = httpx.get(f"{gateway.admin}/metrics").text
    counts = re.findall(r"^convoy_(?:in_flight|requests_total{.*}) (\S+)$", metrics, re.MULTILINE)
    return sum(int(float(count)) for count in counts)


def test_a_second_sigterm_does_not_cut_the_drain_short(
    serve: Serve, large_repository: Path, photos: dict[str, bytes]
) -> None:
    """All requests in flight to a slow model are answered after two signals."""
    photo = photos["flower.jpg"]
    gateway = serve(f"--repository={large_repository}", "--models=resnet18")
    gateway.wait_until_ready(120)
    outcomes: list[object] = []

    def ask(server: str) -> None:
        try:
            with Client(server) as client:
                outcomes.append(client.classify(photo, model="resnet18").version)
        except Exception as error:
            outcomes.append(error)

    servers = islice(cycle([gateway.http, gateway.grpc]), REQUESTS)
    threads = [threading.Thread(target=ask, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    gateway.wait_for(lambda: accepted(gateway) == REQUESTS)
    for _ in range(2):
        gateway.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    assert outcomes == ["1"] * REQUESTS
    assert gateway.process.wait(30) == 0


def test_while_it_drains_it_is_not_ready_and_takes_nothing_new(
    serve: Serve, large_repository: Path, photos: dict[str, bytes]
) -> None:
    photo = photos["flower.jpg"]
    gateway = serve(f"--repository={large_repository}", "--models=resnet18")
    gateway.wait_until_ready(120)
    url = f"{gateway.http}/v1/models/resnet18:classify"
    asked = [
        threading.Thread(target=httpx.post, args=(url,), kwargs={"content": photo, "timeout": 60})
        for _ in range(REQUESTS)
    ]
    for thread in asked:
        thread.start()
    gateway.wait_for(lambda: accepted(gateway) == REQUESTS)
    gateway.process.send_signal(signal.SIGTERM)
    gateway.wait_for(lambda: httpx.get(f"{gateway.admin}/readyz").status_code == 503)
    late = httpx.post(url, content=photo)
    assert (late.status_code, late.json()["reason"]) == (503, "SHUTTING_DOWN")
    for thread in asked:
        thread.join()
    assert gateway.process.wait(30) == 0
