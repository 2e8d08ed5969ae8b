"""Our histograms are exposed as those of prometheus_client are."""

from __future__ import annotations

import random

import prometheus_client
from prometheus_client import CollectorRegistry, generate_latest

from server.observability import metrics  # switches off what each series would add
from server.observability.histograms import Histogram

BOUNDS = metrics.STAGE_BUCKETS_S


def test_exposes_what_prometheus_client_exposes() -> None:
    rng = random.Random(1)
    reference, tested = CollectorRegistry(), CollectorRegistry()
    labels = ["model", "stage"]
    theirs = prometheus_client.Histogram(
        "took_seconds", "Time", labels, buckets=BOUNDS, registry=reference
    )
    ours = Histogram("took_seconds", "Time", labels, BOUNDS, registry=tested)
    for _ in range(300):
        values = rng.choice("ab"), rng.choice('"\\\n')
        seconds = rng.choice((0.0, BOUNDS[3], BOUNDS[-1], BOUNDS[-1] + 1, rng.random()))
        theirs.labels(*values).observe(seconds)
        ours.labels(*values).observe(seconds)
    assert generate_latest(tested) == generate_latest(reference)


def test_without_observations_only_its_head_is_exposed() -> None:
    registry = CollectorRegistry()
    Histogram("took_seconds", "Time", ["model"], BOUNDS, registry=registry)
    assert generate_latest(registry).splitlines() == [
        b"# HELP took_seconds Time",
        b"# TYPE took_seconds histogram",
    ]
