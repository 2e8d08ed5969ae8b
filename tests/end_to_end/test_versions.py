"""Versions come and go under traffic: no request is lost, and only proven versions answer.

Tested on each runner, and with two gateways on one Triton, which unload versions of each other.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from convoy import Client
from convoy.v1 import classifier_pb2 as pb

Serve = Callable[..., Any]
StartTriton = Callable[[Path], AbstractContextManager[str]]
EditFacts = Callable[[Path, Callable[[pb.Model], None]], None]

ROOT = Path(__file__).resolve().parents[2]
GRACE = "--unload-grace-s=0.5"


@pytest.fixture
def shared_triton(start_triton: StartTriton, repository: Path) -> Iterator[str]:
    with start_triton(repository) as address:
        yield address


@pytest.fixture(
    params=[
        "in-process",
        "triton-local",
        pytest.param("two gateways on one Triton", marks=pytest.mark.slow),
    ]
)
def gateways(request: pytest.FixtureRequest, serve: Serve, repository: Path) -> list[Any]:
    if request.param == "in-process":
        places = [["--runner=in-process", f"--repository={repository}"]]
    elif request.param == "triton-local":
        request.getfixturevalue("tritonserver")
        places = [["--runner=triton-local", f"--repository={repository}"]]
    else:
        places = [[f"--triton={request.getfixturevalue('shared_triton')}"]] * 2
    running = [serve(*place, GRACE) for place in places]
    for gateway in running:
        gateway.wait_until_ready()
    return running


@contextmanager
def traffic(gateways: list[Any], image: bytes, version: str = "") -> Iterator[Counter[str]]:
    """Sends requests over each wire of each gateway until the block ends; counts the outcomes."""
    outcomes: Counter[str] = Counter()
    is_over = threading.Event()

    def ask(server: str) -> None:
        with Client(server) as client:
            while not is_over.is_set():
                try:
                    answer = client.classify(image, model="lenet5", version=version)
                    outcomes[f"v{answer.version} {answer.best.label}"] += 1
                except Exception as error:
                    outcomes[repr(error)] += 1
                time.sleep(0.01)  # the gateways need the cores too

    servers = [server for gateway in gateways for server in (gateway.grpc, gateway.http)]
    threads = [threading.Thread(target=ask, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield outcomes
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def models(gateway: Any) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = httpx.get(f"{gateway.http}/v1/models").json()["models"]
    return listed


def default_version(gateway: Any) -> str:
    return next((model["version"] for model in models(gateway) if model["is_default"]), "")


def loaded_versions(gateway: Any) -> set[str]:
    return {model["version"] for model in models(gateway) if model["state"] == "STATE_READY"}


def wait_until_loaded(gateways: list[Any], versions: set[str]) -> None:
    for gateway in gateways:
        gateway.wait_for(lambda gateway=gateway: loaded_versions(gateway) == versions)


def publish(
    repository: Path, number: int, change: Callable[[Path], None] = lambda path: None
) -> None:
    staging = repository / f"lenet5.v{number}.staging"
    shutil.copytree(repository / "lenet5.v1", staging)
    change(staging)
    staging.rename(repository / f"lenet5.v{number}")


def convoy(*words: str, repository: Path) -> None:
    command = [sys.executable, "-m", "convoy.cli", *words, f"--repository={repository}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def swap_labels(facts: pb.Model) -> None:
    facts.labels.reverse()


def test_no_request_is_lost_while_versions_come_and_go(
    gateways: list[Any], repository: Path, small_digit: bytes, edit_facts: EditFacts
) -> None:
    with traffic(gateways, small_digit) as outcomes:
        publish(repository, 2)
        wait_until_loaded(gateways, {"2"})
        assert set(outcomes) == {"v1 7", "v2 7"}, "the switch"

        publish(repository, 3, lambda path: edit_facts(path, swap_labels))
        for gateway in gateways:
            gateway.wait_for(lambda gateway=gateway: "v3 is not served" in gateway.log())
        assert [default_version(gateway) for gateway in gateways] == ["2"] * len(gateways)

        convoy("rollback", "lenet5", repository=repository)  # of version 3
        convoy("rollback", "lenet5", repository=repository)
        wait_until_loaded(gateways, {"1"})
        answered = outcomes["v2 7"]
        convoy("restore", "lenet5.v2", repository=repository)
        wait_until_loaded(gateways, {"2"})
    assert set(outcomes) == {"v1 7", "v2 7"}
    assert outcomes["v2 7"] > answered
    assert outcomes.total() > 100


def test_a_version_that_stays_loaded_answers_by_its_number_through_a_switch(
    serve: Serve, runner_name: str, repository: Path, small_digit: bytes
) -> None:
    options = [f"--repository={repository}", f"--runner={runner_name}", "--keep-loaded=2", GRACE]
    gateway = serve(*options)
    gateway.wait_until_ready()
    with (
        traffic([gateway], small_digit, version="1") as numbered,
        traffic([gateway], small_digit) as outcomes,
    ):
        publish(repository, 2)
        gateway.wait_for(lambda: loaded_versions(gateway) == {"1", "2"})
        time.sleep(2)  # longer than the grace period
        convoy("rollback", "lenet5", repository=repository)
        gateway.wait_for(lambda: loaded_versions(gateway) == {"1"})
    assert set(numbered) == {"v1 7"}
    assert set(outcomes) == {"v1 7", "v2 7"}


def test_a_gateway_that_unloads_a_version_fails_no_request_of_another_gateway(
    serve: Serve, shared_triton: str, repository: Path, small_digit: bytes
) -> None:
    triton = f"--triton={shared_triton}"
    quick, keeping = serve(triton, "--unload-grace-s=0.1"), serve(triton, "--keep-loaded=2")
    for gateway in (quick, keeping):
        gateway.wait_until_ready()
    with (
        traffic([keeping], small_digit, version="1") as numbered,
        traffic([quick], small_digit) as outcomes,
    ):
        publish(repository, 2)
        wait_until_loaded([quick], {"2"})
        wait_until_loaded([keeping], {"1", "2"})
        keeping.wait_for(lambda: "lenet5.v1 is no longer loaded" in keeping.log())
        wait_until_loaded([keeping], {"1", "2"})
    assert set(numbered) == {"v1 7"}
    assert set(outcomes) == {"v1 7", "v2 7"}
