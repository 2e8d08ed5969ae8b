"""Versions come and go under traffic: no request fails, and only what is proven answers."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from convoy import Client
from convoy.v1 import classifier_pb2 as pb

Serve = Callable[..., Any]
EditFacts = Callable[[Path, Callable[[pb.Model], None]], None]


@pytest.fixture
def gateway(runner_name: str, serve: Serve, repository: Path) -> Any:
    running = serve(f"--repository={repository}", f"--runner={runner_name}", "--unload-grace-s=0.5")
    running.wait_until_ready()
    return running


@contextmanager
def traffic(server: str, image: bytes) -> Iterator[Counter[str]]:
    """Asks without a pause, from two clients; counts the version that answered, or the error."""
    outcomes: Counter[str] = Counter()
    is_over = threading.Event()

    def ask() -> None:
        with Client(server) as client:
            while not is_over.is_set():
                try:
                    answer = client.classify(image, model="lenet5")
                    outcomes[f"v{answer.version} {answer.best.label}"] += 1
                except Exception as error:
                    outcomes[repr(error)] += 1

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield outcomes
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def default_version(gateway: Any) -> str:
    models = httpx.get(f"{gateway.http}/v1/models").json()["models"]
    return next((model["version"] for model in models if model["is_default"]), "")


def loaded_versions(gateway: Any) -> set[str]:
    models = httpx.get(f"{gateway.http}/v1/models").json()["models"]
    return {model["version"] for model in models if model["state"] == "STATE_READY"}


def publish(repository: Path, change: Callable[[Path], None] = lambda path: None) -> None:
    staging = repository / "lenet5.v2.staging"
    shutil.copytree(repository / "lenet5.v1", staging)
    change(staging)
    staging.rename(repository / "lenet5.v2")


def test_a_new_version_takes_over_without_a_failed_request(
    gateway: Any, repository: Path, digit: bytes
) -> None:
    with traffic(gateway.grpc, digit) as outcomes:
        time.sleep(0.5)
        publish(repository)
        gateway.wait_for(lambda: loaded_versions(gateway) == {"2"})
        time.sleep(0.5)
    assert set(outcomes) == {"v1 7", "v2 7"}


def test_a_roll_back_is_one_rename_without_a_failed_request(
    gateway: Any, repository: Path, digit: bytes
) -> None:
    publish(repository)
    gateway.wait_for(lambda: loaded_versions(gateway) == {"2"})
    with traffic(gateway.grpc, digit) as outcomes:
        time.sleep(0.3)
        (repository / "lenet5.v2").rename(repository / "lenet5.v2.withdrawn")
        gateway.wait_for(lambda: loaded_versions(gateway) == {"1"})
        time.sleep(0.3)
    assert set(outcomes) == {"v1 7", "v2 7"}


def test_a_version_that_does_not_prove_itself_answers_nobody(
    gateway: Any, repository: Path, digit: bytes, edit_facts: EditFacts
) -> None:
    def swap_labels(facts: pb.Model) -> None:
        facts.labels.reverse()

    with traffic(gateway.grpc, digit) as outcomes:
        publish(repository, lambda path: edit_facts(path, swap_labels))
        gateway.wait_for(lambda: "lenet5.v2 is not served" in gateway.log())
        time.sleep(0.5)
    assert set(outcomes) == {"v1 7"}
    assert default_version(gateway) == "1"
