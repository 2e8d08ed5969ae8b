"""/metrics, read as Prometheus reads it, on each runner."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import grpc
import httpx
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse

from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc
from server.observability.metrics import quantile

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "observability.md"
TRITON = "convoy_triton_model"

pytestmark = pytest.mark.xdist_group("large-gateway")


class Gateway(Protocol):
    process: Any
    http: str
    grpc: str
    admin: str

    def wait_for(self, is_so: Callable[[], bool]) -> None: ...


class Scrape:
    """What /metrics says at one moment."""

    def __init__(self, gateway: Gateway) -> None:
        text = httpx.get(f"{gateway.admin}/metrics").raise_for_status().text
        self.families = {family.name: family for family in parse(text)}
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        return self._values.get((name, frozenset(labels.items())), 0.0)

    def labels(self, name: str) -> list[dict[str, str]]:
        return [dict(labels) for found, labels in self._values if found == name]


def classify(gateway: Gateway, content: bytes, model: str = "lenet5") -> httpx.Response:
    return httpx.post(f"{gateway.http}/v1/models/{model}:classify", content=content)


def classify_over_grpc(gateway: Gateway, content: bytes) -> pb.ClassifyResponse:
    request = pb.ClassifyRequest(model="lenet5", image=pb.Image(content=content))
    with grpc.insecure_channel(gateway.grpc) as channel:
        stub = classifier_pb2_grpc.ImageClassifierStub(channel)
        answer: pb.ClassifyResponse = stub.Classify(request)
    return answer


def test_requests_are_counted_by_door_model_and_outcome(gateway: Gateway, digit: bytes) -> None:
    before = Scrape(gateway)
    for _ in range(2):
        classify(gateway, digit).raise_for_status()
    classify_over_grpc(gateway, digit)
    assert classify(gateway, b"no picture").status_code == 415
    assert classify(gateway, digit, model="lenet4").status_code == 404
    after = Scrape(gateway)

    def more(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    requests = "convoy_requests_total"
    assert more(requests, door="http", model="lenet5", reason="OK") == 2
    assert more(requests, door="grpc", model="lenet5", reason="OK") == 1
    assert more(requests, door="http", model="lenet5", reason="IMAGE_FORMAT_UNSUPPORTED") == 1
    assert more(requests, door="http", model="", reason="MODEL_NOT_FOUND") == 1
    assert more("convoy_image_bytes_total", door="http", model="lenet5") == 2 * len(digit) + 10
    assert more("convoy_image_bytes_total", door="grpc", model="lenet5") == len(digit)
    assert more("convoy_batch_size_count", model="lenet5") == 3


def test_each_stage_has_a_histogram_from_half_a_millisecond_to_ten_seconds(
    gateway: Gateway, digit: bytes
) -> None:
    before = Scrape(gateway)
    timing = classify(gateway, digit).raise_for_status().json()["timing"]
    after = Scrape(gateway)
    stages = {name.removesuffix("_us") for name in timing}
    assert stages >= {"decode", "preprocess", "infer", "total"}
    for stage in stages:
        labels = {"model": "lenet5", "stage": stage}
        took_s = after.value("convoy_stage_seconds_sum", **labels) - before.value(
            "convoy_stage_seconds_sum", **labels
        )
        assert took_s == pytest.approx(timing[f"{stage}_us"] / 1e6, abs=1e-6)
    bounds = [float(labels["le"]) for labels in after.labels("convoy_stage_seconds_bucket")]
    assert {0.0005, 10.0} <= set(bounds)


def test_time_in_the_queue_is_told_where_the_runner_tells_it(
    gateway: Gateway, digit: bytes
) -> None:
    timing = classify(gateway, digit).json()["timing"]
    told = {labels["stage"] for labels in Scrape(gateway).labels("convoy_stage_seconds_count")}
    assert ({"queue", "compute"} <= told) == ("queue_us" in timing)


def test_the_facts_of_a_version_stand_beside_its_readiness(gateway: Gateway) -> None:
    scrape = Scrape(gateway)
    for name in ("lenet5", "resnet18"):
        model = httpx.get(f"{gateway.http}/v1/models/{name}").json()
        (info,) = (
            labels for labels in scrape.labels("convoy_model_info") if labels["model"] == name
        )
        assert info["version"] == model["version"] == "1"
        assert info["precision"] == model["manifest"]["precision"] == "fp32"
        assert info["weights"] == model["manifest"]["weights"]["source"]
        assert info["manifest_digest"] == model["manifest_digest"]
        assert info["device"] == "cpu" and "onnxruntime" in info["runtime"]
        assert scrape.value("convoy_model_ready", model=name, version="1") == 1
        assert scrape.value("convoy_model_default", model=name, version="1") == 1
    (runner,) = scrape.labels("convoy_runner_up")
    assert scrape.value("convoy_ready") == scrape.value("convoy_runner_up", **runner) == 1
    assert scrape.value("convoy_runner_images_total", outcome="OK", **runner) >= 2


def test_what_is_in_flight_shows_while_it_is(gateway: Gateway, digit: bytes) -> None:
    with ThreadPoolExecutor(12) as clients:
        answers = [clients.submit(classify_over_grpc, gateway, digit) for _ in range(600)]
        held = 0.0
        while not all(answer.done() for answer in answers):
            scrape = Scrape(gateway)
            if scrape.value("convoy_in_flight") and scrape.value("convoy_in_flight_bytes"):
                held = max(held, scrape.value("convoy_in_flight_bytes"))
    assert held >= len(digit)
    assert Scrape(gateway).value("convoy_in_flight") == 0
    assert Scrape(gateway).value("convoy_in_flight_bytes") == 0


def test_tritons_own_counts_are_passed_on(gateway: Gateway, digit: bytes) -> None:
    served = classify(gateway, digit).raise_for_status().json()["served"]
    before = Scrape(gateway)
    if not served["runtime"].startswith("triton"):
        assert not any(name.startswith(TRITON) for name in before.families)
        return
    for _ in range(3):
        classify(gateway, digit).raise_for_status()
    after = Scrape(gateway)

    def more(name: str, **labels: str) -> float:
        labels |= {"model": "lenet5", "version": "1", "runner": "triton-local"}
        return after.value(f"{TRITON}_{name}", **labels) - before.value(
            f"{TRITON}_{name}", **labels
        )

    assert more("requests_total", outcome="success") == 3
    assert more("requests_total", outcome="fail") == 0
    assert more("images_total") == more("batches_total") == 3
    assert 0 < more("stage_seconds_total", stage="compute_infer") < 1
    assert 0 < more("stage_seconds_total", stage="queue") < 1


def test_a_triton_that_hangs_does_not_hang_metrics(gateway: Gateway) -> None:
    triton = child_of(gateway.process.pid, "tritonserver")
    if triton is None:  # in process there is none
        return
    os.kill(triton, signal.SIGSTOP)
    try:
        started_s = time.monotonic()
        scrape = Scrape(gateway)
        assert time.monotonic() - started_s > 0.5, "Triton was waited for, and in vain"
        assert not scrape.labels(f"{TRITON}_requests_total")
        assert scrape.labels("convoy_requests_total")
    finally:
        os.kill(triton, signal.SIGCONT)
        gateway.wait_for(lambda: bool(Scrape(gateway).labels(f"{TRITON}_requests_total")))


def child_of(pid: int, name: str) -> int | None:
    for path in Path("/proc").glob("[0-9]*"):
        try:
            stat = (path / "stat").read_text()
        except OSError:
            continue
        command, parent = re.findall(r"\((.*)\) . (\d+)", stat)[0]
        if command.startswith(name) and int(parent) == pid:
            return int(path.name)
    return None


def test_what_is_refused_before_it_is_read_is_counted(lenet_gateway: Gateway) -> None:
    def counted(status: str) -> float:
        return Scrape(lenet_gateway).value("convoy_http_unread_total", status=status)

    before = counted("400"), counted("431")
    host, port = lenet_gateway.http.removeprefix("http://").split(":")
    for request, status in (
        (b"no HTTP\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\nx: %s\r\n\r\n" % (b"x" * 99_999), 431),
    ):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(request)
            assert connection.recv(99).startswith(b"HTTP/1.1 %d " % status)
    assert (counted("400"), counted("431")) == (before[0] + 1, before[1] + 1)


def test_the_process_and_the_build_are_told(lenet_gateway: Gateway) -> None:
    scrape = Scrape(lenet_gateway)
    assert scrape.value("process_resident_memory_bytes") > 10e6
    assert scrape.value("process_open_fds") > 3
    assert scrape.labels("convoy_build_info")[0]["version"]
    assert not [name for name in scrape.families if name.endswith("_created")]


def test_openmetrics_is_spoken_to_who_asks_for_it(lenet_gateway: Gateway, digit: bytes) -> None:
    classify(lenet_gateway, digit).raise_for_status()
    answer = httpx.get(
        f"{lenet_gateway.admin}/metrics",
        headers={"accept": "application/openmetrics-text;version=1.0.0"},
    )
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    families = {family.name: family.type for family in parse_openmetrics(answer.text)}
    assert families["convoy_requests"] == "counter"
    plain = httpx.get(f"{lenet_gateway.admin}/metrics")
    assert plain.headers["content-type"].startswith("text/plain")


def test_the_document_names_each_metric_with_its_labels_and_no_other(
    gateway: Gateway, digit: bytes
) -> None:
    classify(gateway, digit).raise_for_status()
    served = {}
    for name, family in Scrape(gateway).families.items():
        suffix = "_total" if family.type == "counter" else ""
        labels = {label for sample in family.samples for label in sample.labels}
        served[name + suffix] = labels - {"le"}
    chapter = re.findall(r"^## Metrics.*?^## ", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)[0]
    documented = re.findall(r"^\| `(\w+)` \| (?:([\w, ]*) \| )?.+ \|$", chapter, re.MULTILINE)
    assert any(name.startswith(TRITON) for name, _ in documented)
    has_triton = any(name.startswith(TRITON) for name in served)
    expected = {name for name, _ in documented if has_triton or not name.startswith(TRITON)}
    assert set(served) == expected
    for name, labels in documented:
        if name.startswith("convoy_") and name in served:
            assert served[name] == set(labels.split(", ")) - {""}, name


def test_a_quantile_lies_evenly_within_its_bucket() -> None:
    infinity = float("inf")
    assert quantile(0.5, [(1.0, 0.0), (2.0, 10.0), (infinity, 10.0)]) == pytest.approx(1.5)
    assert quantile(0.99, [(1.0, 50.0), (2.0, 100.0), (infinity, 100.0)]) == pytest.approx(1.98)
    # What took longer than the last bound took at least that.
    assert quantile(0.99, [(1.0, 1.0), (10.0, 1.0), (infinity, 4.0)]) == 10.0
