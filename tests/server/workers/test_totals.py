"""The metrics of several processes as those of one."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import Metric
from prometheus_client.openmetrics.exposition import generate_latest

from server.workers.totals import Totals

ONE, OTHER, NEXT = (0, 0), (1, 0), (1, 1)
BOTH = [ONE, OTHER]


def exposition(count: int, ready: float = 1.0, seconds: float = 0.2) -> str:
    registry = CollectorRegistry()
    requests = Counter("convoy_requests", "Requests", ["model"], registry=registry)
    requests.labels("lenet5").inc(count)
    Gauge("convoy_ready", "Ready", registry=registry).set(ready)
    Gauge("convoy_in_flight", "Held", registry=registry).set(count)
    Gauge("convoy_model_failed", "Failed", registry=registry).set(1 - ready)
    Counter("convoy_triton_model_images", "Triton's", registry=registry).inc(10)
    Histogram("convoy_seconds", "Time", buckets=(0.1, 1), registry=registry).observe(seconds)
    Info("convoy_build", "Version", registry=registry).info({"version": "1"})
    text: str = generate_latest(registry).decode()
    return text


def values(metrics: Iterable[Metric]) -> dict[str, float]:
    return {
        sample.name + sample.labels.get("le", ""): sample.value
        for metric in metrics
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }


def test_counts_are_summed_and_what_all_have_is_so() -> None:
    shown = values(Totals().add_up({ONE: exposition(3), OTHER: exposition(4, 0, 5)}, BOTH))
    assert shown["convoy_requests_total"] == 7
    assert shown["convoy_in_flight"] == 7
    assert (shown["convoy_ready"], shown["convoy_model_failed"]) == (0, 1)
    assert shown["convoy_triton_model_images_total"] == 10
    assert [shown[f"convoy_seconds_bucket{le}"] for le in ("0.1", "1.0", "+Inf")] == [0, 1, 2]
    assert shown["convoy_seconds_sum"] == pytest.approx(5.2)
    assert shown["convoy_build_info"] == 1


def test_counts_never_fall_when_a_process_ends_or_is_silent() -> None:
    totals = Totals()
    totals.add_up({ONE: exposition(3), OTHER: exposition(4)}, BOTH)
    silent = values(totals.add_up({ONE: exposition(3)}, BOTH))
    assert (silent["convoy_requests_total"], silent["convoy_in_flight"]) == (7, 3)
    ended = values(totals.add_up({ONE: exposition(3)}, [ONE]))
    assert (ended["convoy_requests_total"], ended["convoy_in_flight"]) == (7, 3)
    replaced = values(totals.add_up({ONE: exposition(3), NEXT: exposition(1)}, [ONE, NEXT]))
    assert (replaced["convoy_requests_total"], replaced["convoy_in_flight"]) == (8, 4)
    assert replaced["convoy_seconds_count"] == 3
