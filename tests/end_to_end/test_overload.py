"""Far more requests than can be answered: those that are admitted are answered in time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.clients import connect_clients
from bench.overload import Load, measure, measure_capacity, open_loop
from bench.pictures import photo
from tests.conftest import ROOT

pytestmark = pytest.mark.xdist_group("large-gateway")

# On cores that may be busy: answers as a share of the capacity, and the share of late answers.
# Without refusals, all but the first answers are late; bench/overload.py measures how flat it is.
MIN_SHARE, MAX_LATE = 0.5, 0.5


def assert_overload_is_refused(load: Load, most_late: float) -> None:
    refused = load.select("OVERLOADED")
    assert {outcome.what for outcome in load.outcomes} <= {"OK", "OVERLOADED", "DEADLINE_EXCEEDED"}
    assert len(refused) > len(load.outcomes) / 3
    assert all(each.has_delay for each in refused)
    assert load.late_share < most_late
    assert load.probes and not load.failed_probes


@pytest.mark.parametrize("gateway", ["in-process"], indirect=True)
async def test_at_four_times_its_capacity_a_gateway_answers_as_many_in_time(gateway: Any) -> None:
    """Deadline and duration are given in images, so that they suit machines of any speed."""
    async with connect_clients(gateway.grpc, gateway.http, "resnet18", photo()) as clients:
        capacity = await measure_capacity(clients, 64)
        load = await open_loop(
            clients, 4.0, capacity=capacity, seconds=80 / capacity, deadline_s=32 / capacity
        )
    assert_overload_is_refused(load, MAX_LATE)
    assert load.goodput > MIN_SHARE * capacity


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["in-process", "triton-local"])
async def test_goodput_stays_flat_past_saturation(
    serve: Callable[..., Any], tritonserver: Path, resnet50_repository: Path, runner: str
) -> None:
    gateway = serve(
        f"--repository={resnet50_repository}", "--models=resnet50", f"--runner={runner}"
    )
    gateway.wait_until_ready(120)
    async with connect_clients(gateway.grpc, gateway.http, "resnet50", photo()) as clients:
        _, loads = await measure(clients, seconds=20.0, deadline_s=1.0)
    assert_overload_is_refused(loads[-1], MAX_LATE)
    assert loads[-1].goodput > MIN_SHARE * max(load.goodput for load in loads)


@pytest.fixture(scope="module")
def resnet50_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("resnet50") / "model_repository"
    command = [sys.executable, "export/build.py", "resnet50", "--weights", "random"]
    subprocess.run([*command, "--repository", str(path)], cwd=ROOT, check=True)
    return path
