"""The repository's share is unmounted, or a version in it hangs, or is made to harm the gateway."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from convoy import Client
from tests.conftest import RUNNERS, RunningGateway, need_runner, serving
from tests.harmful_graphs import compute_one_node_for_an_hour, loop_while_bright

# For a version that is whole; on a busy machine one that was late is tried again.
LOAD_TIMEOUT_S = {"in-process": 3, "triton-local": 8}


def state_of(gateway: RunningGateway) -> Any:
    return httpx.get(f"{gateway.admin}/statusz", headers={"accept": "application/json"}).json()


def metric(gateway: RunningGateway, name: str) -> float:
    lines = httpx.get(f"{gateway.admin}/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name}{{")]
    return float(line.rpartition(" ")[2])


# ---------------------------------------------------------------- the repository goes away


@pytest.fixture(params=RUNNERS)
def gateway(
    request: pytest.FixtureRequest, repository: Path, tmp_path: Path
) -> Iterator[RunningGateway]:
    need_runner(request, request.param)
    options = [f"--repository={repository}", f"--runner={request.param}"]
    with serving(tmp_path / "gateway.log", *options) as running:
        running.wait_until_ready()
        yield running


def test_models_in_memory_are_served_while_the_repository_is_away(
    gateway: RunningGateway, repository: Path, small_digit: bytes
) -> None:
    away = repository.rename(repository.with_name("away"))
    repository.mkdir()  # as an unmounted mount point
    gateway.wait_for(lambda: metric(gateway, "convoy_repository_up") == 0)
    (runner,) = state_of(gateway)["runners"]
    assert (runner["is_reachable"], runner["has_repository"]) == (True, False)
    assert "is empty" in runner["fault"]
    with Client(gateway.grpc) as client:
        assert client.classify(small_digit, model="lenet5").classes[0].label == "7"
    assert httpx.get(f"{gateway.http}/readyz").status_code == 200
    assert "serves on without its repository" in gateway.log()

    repository.rmdir()
    away.rename(repository)
    gateway.wait_for(lambda: metric(gateway, "convoy_repository_up") == 1)
    assert "can read its repository again" in gateway.log()


# ---------------------------------------------------------------- versions that hang or bloat


def put_a_fifo(path: Path, file: str) -> None:
    (path / file).unlink()
    os.mkfifo(path / file)


def put_a_device(path: Path, file: str) -> None:
    (path / file).unlink()
    (path / file).symlink_to("/dev/zero")


def put_a_terabyte(path: Path, file: str) -> None:
    os.truncate(path / file, 1 << 40)  # a hole, which takes no room


def ask_for_threads(path: Path) -> None:
    with (path / "config.pbtxt").open("a") as file:
        file.write('parameters { key: "intra_op_thread_count" value { string_value: "30000" } }\n')


MODEL, CONFIG, LABELS = "1/model.onnx", "config.pbtxt", "labels.txt"
# By name: what is done to a copy of LeNet-5, and why it is not served.
HARMFUL: dict[str, tuple[Callable[[Path], object], str]] = {
    "loops": (loop_while_bright, "were not answered within"),
    "stuck": (compute_one_node_for_an_hour, "were not answered within"),
    "fifo-model": (lambda path: put_a_fifo(path, MODEL), "not a regular file"),
    "fifo-config": (lambda path: put_a_fifo(path, CONFIG), "not a regular file"),
    "fifo-labels": (lambda path: put_a_fifo(path, LABELS), "not a regular file"),
    "device-model": (lambda path: put_a_device(path, MODEL), "not a regular file"),
    "device-config": (lambda path: put_a_device(path, CONFIG), "not a regular file"),
    "large-model": (lambda path: put_a_terabyte(path, MODEL), "bytes, at most"),
    "large-config": (lambda path: put_a_terabyte(path, CONFIG), "bytes, at most"),
    "large-labels": (lambda path: put_a_terabyte(path, LABELS), "bytes, at most"),
    "threads": (ask_for_threads, "intra_op_thread_count is 30000"),
}


@pytest.fixture
def harmful_repository(repository: Path, shipped_lenet5: Path) -> Path:
    for name, (harm, _) in HARMFUL.items():
        harm(shutil.copytree(shipped_lenet5, repository / f"{name}.v1"))
    loop_while_bright(shutil.copytree(shipped_lenet5, repository / "lenet5.v2"))
    return repository


@pytest.mark.parametrize("runner", RUNNERS)
def test_versions_that_hang_or_bloat_harm_no_other(
    runner: str,
    request: pytest.FixtureRequest,
    harmful_repository: Path,
    tmp_path: Path,
    small_digit: bytes,
) -> None:
    need_runner(request, runner)
    options = [
        f"--repository={harmful_repository}",
        f"--runner={runner}",
        f"--load-timeout-s={LOAD_TIMEOUT_S[runner]}",
    ]
    with serving(tmp_path / "gateway.log", *options) as gateway:
        gateway.wait_until_ready()
        with Client(gateway.grpc) as client:
            answer = client.classify(small_digit, model="lenet5")
        assert (answer.classes[0].label, answer.version) == ("7", "1")
        reasons = {
            version["model"]: version["why_not_ready"]
            for version in state_of(gateway)["models"]
            if version["model"] in HARMFUL
        }
        for name, (_, reason) in HARMFUL.items():
            assert reason in reasons[name], name
        if runner == "in-process":
            assert metric(gateway, "convoy_sessions_abandoned_total") == 1
            assert "stuck.v1 is abandoned" in gateway.log()
        assert gateway.stop() == 0
    assert "stopped" in gateway.log()
    assert "sequential_executor" not in gateway.log(), "ONNX Runtime prints what it raises"
