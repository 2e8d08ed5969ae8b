"""The metrics of several processes as those of one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import Metric

from server.observability import exposition
from server.workers.totals import Totals, merge_metrics, merge_statistics, only_counts

ONE, OTHER, NEXT = (0, 0), (1, 0), (1, 1)
BOTH = [ONE, OTHER]


def counted(count: int, ready: float = 1.0, seconds: float = 0.2) -> list[Metric]:
    """As a worker sends it."""
    registry = CollectorRegistry()
    requests = Counter("convoy_requests", "Requests", ["model"], registry=registry)
    requests.labels("lenet5").inc(count)
    Gauge("convoy_ready", "Ready", registry=registry).set(ready)
    Gauge("convoy_in_flight", "Held", registry=registry).set(count)
    Gauge("convoy_model_failed", "Failed", registry=registry).set(1 - ready)
    Counter("convoy_triton_model_images", "Triton's", registry=registry).inc(10)
    Histogram("convoy_seconds", "Time", buckets=(0.1, 1), registry=registry).observe(seconds)
    Info("convoy_build", "Version", registry=registry).info({"version": "1"})
    return exposition.from_json(exposition.to_json(registry.collect()))


def totals_of_metrics() -> Totals[list[Metric]]:
    return Totals(merge_metrics, only_counts)


def values(metrics: Iterable[Metric]) -> dict[str, float]:
    return {
        sample.name + sample.labels.get("le", ""): sample.value
        for metric in metrics
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }


def test_counts_are_summed_and_what_all_have_is_so() -> None:
    shown = values(totals_of_metrics().add_up({ONE: counted(3), OTHER: counted(4, 0, 5)}, BOTH))
    assert shown["convoy_requests_total"] == 7
    assert shown["convoy_in_flight"] == 7
    assert (shown["convoy_ready"], shown["convoy_model_failed"]) == (0, 1)
    assert shown["convoy_triton_model_images_total"] == 10
    assert [shown[f"convoy_seconds_bucket{le}"] for le in ("0.1", "1.0", "+Inf")] == [0, 1, 2]
    assert shown["convoy_seconds_sum"] == pytest.approx(5.2)
    assert shown["convoy_build_info"] == 1


def test_counts_never_fall_when_a_process_ends_or_is_silent() -> None:
    totals = totals_of_metrics()
    totals.add_up({ONE: counted(3), OTHER: counted(4)}, BOTH)
    silent = values(totals.add_up({ONE: counted(3)}, BOTH))
    assert (silent["convoy_requests_total"], silent["convoy_in_flight"]) == (7, 3)
    ended = values(totals.add_up({ONE: counted(3)}, [ONE]))
    assert (ended["convoy_requests_total"], ended["convoy_in_flight"]) == (7, 3)
    replaced = values(totals.add_up({ONE: counted(3), NEXT: counted(1)}, [ONE, NEXT]))
    assert (replaced["convoy_requests_total"], replaced["convoy_in_flight"]) == (8, 4)
    assert replaced["convoy_seconds_count"] == 3


def statistics(images: int, ms: int, version: str = "1") -> dict[str, Any]:
    stages = {"success": {"count": images, "ns": ms}}
    counts = {"last_inference": ms, "inference_count": images, "inference_stats": stages}
    return {"name": "lenet5", "version": version, **counts, "batch_stats": []}


def test_statistics_are_summed_by_version_those_of_ended_processes_included() -> None:
    totals = Totals(merge_statistics, list)
    answers = {ONE: [statistics(3, 10)], OTHER: [statistics(4, 5), statistics(1, 1, "2")]}
    both = [statistics(7, 10), statistics(1, 1, "2")]
    both[0]["inference_stats"]["success"]["ns"] = 15
    assert totals.add_up(answers, BOTH) == both
    assert totals.add_up({ONE: [statistics(3, 10)]}, [ONE, NEXT]) == both
