"""Alert rules and dashboard, on real metrics where Prometheus is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from convoy import Client, errors
from tests.conftest import RunningGateway, serving
from tests.deploy.files import COMPOSE, ROOT, read
from tests.loopback import free_port

PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "convoy.json").read_text())
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"] if panel["type"] != "row"}
# Metrics that only a Triton with GPUs has; the names are from NVIDIA's documents.
OF_GPUS = {"nv_gpu_utilization", "nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes"}
ALERTS_OF_GPUS = {"GpuMemoryFull"}
# Values that Grafana substitutes for its own variables.
VARIABLES = {"$__rate_interval": "10s", "$model": ".*"}


@pytest.fixture(scope="module")
def promtool() -> str:
    return found("promtool")


def found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"needs {program}; Debian: apt-get install prometheus")
    return path


def test_the_alert_rules_fire_and_stay_silent(promtool: str) -> None:
    check(promtool, "test", "rules", str(PROMETHEUS / "alerts_test.yml"))


def test_prometheus_takes_its_configuration(promtool: str) -> None:
    check(promtool, "check", "config", str(PROMETHEUS / "prometheus.yml"))


def check(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_unit_test_and_a_remedy() -> None:
    tested = re.findall(r"alertname: (\w+)", (PROMETHEUS / "alerts_test.yml").read_text())
    assert set(alerts()) == set(tested)
    explained = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "deployment.md").read_text(), re.M)
    assert sorted(alerts()) == sorted(explained)


def alerts() -> dict[str, str]:
    (group,) = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"]}


def test_the_dashboard_is_one_that_grafana_provisions() -> None:
    datasource = read(ROOT / "deploy" / "grafana" / "datasource.yml")["datasources"][0]
    targets = [target for panel in PANELS.values() for target in panel["targets"]]
    assert len(targets) > len(PANELS) > 10
    assert {target["datasource"]["uid"] for target in targets} == {datasource["uid"]}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert (
        datasource["url"] == "http://prometheus:9090" and "prometheus" in read(COMPOSE)["services"]
    )
    # The dashboard is mounted in the folder that the provider reads.
    provider = read(ROOT / "deploy" / "grafana" / "provider.yml")["providers"][0]
    mounts = {
        one["source"]: one["target"] for one in read(COMPOSE)["services"]["grafana"]["configs"]
    }
    assert Path(mounts["grafana-dashboard"]).parent == Path(provider["options"]["path"])


# ---------------------------------------------------------------- on real metrics


@pytest.fixture(scope="module")
def busy_gateway(
    tmp_path_factory: pytest.TempPathFactory, tritonserver: Path
) -> Iterator[RunningGateway]:
    """A gateway with a real Triton."""
    log_path = tmp_path_factory.mktemp("observed") / "gateway.log"
    with serving(log_path, "--runner=triton-local", "--models=lenet5") as running:
        running.wait_until_ready()
        yield running


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    log_path = tmp_path_factory.mktemp("workers") / "gateway.log"
    with serving(log_path, "--workers=2", "--models=lenet5") as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(
    tmp_path_factory: pytest.TempPathFactory,
    busy_gateway: RunningGateway,
    workers: RunningGateway,
    digit: bytes,
) -> Iterator[Callable[[str], list[Any]]]:
    """Queries a Prometheus that has scraped both gateways for some seconds."""
    program, folder, port = found("prometheus"), tmp_path_factory.mktemp("prometheus"), free_port()
    targets = [gateway.admin.removeprefix("http://") for gateway in (busy_gateway, workers)]
    job = {"job_name": "gateway", "static_configs": [{"targets": targets}]}
    config = {"global": {"scrape_interval": "500ms"}, "scrape_configs": [job]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}"]
    process = subprocess.Popen(
        [*command, f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL
    )

    def ask(query: str) -> list[Any]:
        url = f"http://127.0.0.1:{port}/api/v1/query"
        answer = httpx.get(url, params={"query": query}, timeout=10).raise_for_status().json()
        assert answer["status"] == "success", answer
        result: list[Any] = answer["data"]["result"]
        return result

    try:
        work(busy_gateway, digit, until=lambda: is_watched(ask))
        yield ask
    finally:
        process.terminate()
        process.wait(30)


def is_watched(ask: Callable[[str], list[Any]]) -> bool:
    """Rates need several scrapes of a counter that exists."""
    try:
        seen = ask('count_over_time(convoy_requests_total{reason="OK"}[1m]) >= 4')
    except (httpx.TransportError, httpx.HTTPStatusError):  # it is still starting
        return False
    return bool(seen)


def work(gateway: RunningGateway, digit: bytes, until: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    with Client(gateway.grpc) as client:
        while not until():
            assert time.monotonic() < deadline_s
            client.classify(digit, model="lenet5")
            with pytest.raises(errors.ConvoyError):
                client.classify(digit[:100], model="lenet5")
            time.sleep(0.1)


@pytest.mark.parametrize("title", PANELS)
def test_each_panel_shows_something(title: str, prometheus: Callable[[str], list[Any]]) -> None:
    for target in PANELS[title]["targets"]:
        query = target["expr"]
        for variable, value in VARIABLES.items():
            query = query.replace(variable, value)
        series = prometheus(query)
        if of_gpus := set(re.findall(r"\bnv_\w+", query)):
            assert of_gpus <= OF_GPUS, query
            continue
        assert series, query
        # The legend uses only labels of the series.
        labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert labels <= set(series[0]["metric"]), query


@pytest.mark.parametrize("alert", sorted(set(alerts()) - ALERTS_OF_GPUS))
def test_each_alert_uses_metrics_that_exist(
    alert: str, prometheus: Callable[[str], list[Any]]
) -> None:
    """The metrics of each rule exist."""
    for name in set(re.findall(r"\b(?:convoy_\w+|up)\b", alerts()[alert])):
        assert prometheus(name), f"{alert} asks for {name}, which nothing reports"


@pytest.mark.parametrize("alert", sorted(alerts()))
def test_no_alert_is_about_to_fire_where_all_is_well(
    alert: str, prometheus: Callable[[str], list[Any]]
) -> None:
    assert prometheus(alerts()[alert]) == []
