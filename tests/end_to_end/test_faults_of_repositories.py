"""The repository's share is unmounted, or a version in it is none that can be served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from convoy import Client
from tests.conftest import RUNNERS, RunningGateway, need_runner, serving


@pytest.fixture(params=RUNNERS)
def gateway(
    request: pytest.FixtureRequest, repository: Path, tmp_path: Path
) -> Iterator[RunningGateway]:
    need_runner(request, request.param)
    options = [f"--repository={repository}", f"--runner={request.param}"]
    with serving(tmp_path / "gateway.log", *options) as running:
        running.wait_until_ready()
        yield running


def has_repository(gateway: RunningGateway) -> bool:
    lines = httpx.get(f"{gateway.admin}/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith("convoy_repository_up{")]
    return line.endswith(" 1.0")


def test_models_in_memory_are_served_while_the_repository_is_away(
    gateway: RunningGateway, repository: Path, small_digit: bytes
) -> None:
    away = repository.rename(repository.with_name("away"))
    repository.mkdir()  # as an unmounted mount point
    gateway.wait_for(lambda: not has_repository(gateway))
    status = httpx.get(f"{gateway.admin}/statusz", headers={"accept": "application/json"}).json()
    (runner,) = status["runners"]
    assert (runner["is_reachable"], runner["has_repository"]) == (True, False)
    assert "is empty" in runner["fault"]
    with Client(gateway.grpc) as client:
        assert client.classify(small_digit, model="lenet5").classes[0].label == "7"
    assert httpx.get(f"{gateway.http}/readyz").status_code == 200
    assert "serves on without its repository" in gateway.log()

    repository.rmdir()
    away.rename(repository)
    gateway.wait_for(lambda: has_repository(gateway))
    assert "can read its repository again" in gateway.log()
