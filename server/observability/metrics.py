"""What the gateway counts about requests. Only names of known models become labels."""

from __future__ import annotations

import math
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from convoy.v1 import classifier_pb2 as pb

REQUESTS, STAGE_SECONDS, BATCH_SIZE = (
    "convoy_requests",
    "convoy_stage_seconds",
    "convoy_batch_size",
)
STAGE_BUCKETS_S = (
    *(0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0),
)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
STAGES = ("decode", "preprocess", "infer", "total")
STAGES_WITHIN_INFER = ("queue", "compute")  # not every runner measures them

# These would be a second series each, with the time of creation.
disable_created_metrics()  # type: ignore[no-untyped-call]


Facts = dict[str, Any]  # as JSON has them


@dataclass
class Summary:
    """The requests to one model since the start."""

    outcomes: Tally[str] = field(default_factory=Tally)  # by reason; "OK" is one of them
    p50_s: float | None = None  # None: nothing answered yet
    p99_s: float | None = None
    stages: dict[str, Quantiles] = field(default_factory=dict)
    batches: list[tuple[float, int]] = field(default_factory=list)  # at most so large, how many


@dataclass
class Quantiles:
    count: int
    p50_s: float
    p99_s: float


class Metrics:
    """Prometheus instruments of the gateway, and what is computed from them."""

    def __init__(self, unread_statuses: Iterable[HTTPStatus]) -> None:
        self._instruments = CollectorRegistry()
        self._requests = Counter(
            REQUESTS,
            "Requests by outcome: OK, or the reason of the error",
            ["door", "model", "reason"],
            registry=self._instruments,
        )
        self._image_bytes = Counter(
            "convoy_image_bytes",
            "Bytes of the images that were received",
            ["door", "model"],
            registry=self._instruments,
        )
        self._stages = Histogram(
            STAGE_SECONDS,
            "Time of an answered request in each stage",
            ["model", "stage"],
            buckets=STAGE_BUCKETS_S,
            registry=self._instruments,
        )
        self._batch_size = Histogram(
            BATCH_SIZE,
            "Images that went through the network together, seen by each image",
            ["model"],
            buckets=BATCH_BUCKETS,
            registry=self._instruments,
        )
        self._unread = Counter(
            "convoy_http_unread",
            "Connections and requests that were refused before they were read, by HTTP status",
            ["status"],
            registry=self._instruments,
        )
        for status in unread_statuses:
            self._unread.labels(int(status))  # 0 until the first one, instead of missing
        Info("convoy_build", "The gateway's version", registry=self._instruments).info(
            {"version": version("convoy-serving")}
        )
        for collector in (ProcessCollector, GCCollector, PlatformCollector):
            collector(registry=self._instruments)
        # Finding the series of some labels takes longer than counting in it.
        self._requests_of = cache(self._requests.labels)
        self._image_bytes_of = cache(self._image_bytes.labels)
        self._stages_of = cache(self._stages.labels)
        self._batch_size_of = cache(self._batch_size.labels)

    def answered(self, transport: str, response: pb.ClassifyResponse, image_bytes: int) -> None:
        self._count(transport, response.model, "OK", image_bytes)
        self._batch_size_of(response.model).observe(response.served.batch_size)
        timing = response.timing
        measured = [stage for stage in STAGES_WITHIN_INFER if timing.HasField(f"{stage}_us")]
        for stage in (*STAGES, *measured):
            seconds = getattr(timing, f"{stage}_us") / 1e6
            self._stages_of(response.model, stage).observe(seconds)

    def refused(self, transport: str, model: str, reason: str, image_bytes: int = 0) -> None:
        """`model` is empty if the client named none, or one that does not exist."""
        self._count(transport, model, reason, image_bytes)

    def not_read(self, status: HTTPStatus) -> None:
        """A client was too slow, one too many, or did not send HTTP."""
        self._unread.labels(int(status)).inc()

    def _count(self, transport: str, model: str, reason: str, image_bytes: int) -> None:
        self._requests_of(transport, model, reason).inc()
        self._image_bytes_of(transport, model).inc(image_bytes)

    def collect(self) -> list[Metric]:
        """Everything counted so far. Takes milliseconds: call it in a thread."""
        return list(self._instruments.collect())

    def summaries(self) -> dict[str, Summary]:
        """Of each model that was asked for. Takes milliseconds: to be called in a thread."""
        counted = (self._requests, self._stages, self._batch_size)
        return summarize(metric for instrument in counted for metric in instrument.collect())


def summarize(metrics: Iterable[Metric]) -> dict[str, Summary]:
    """Of each model, from metrics that may be those of several processes together."""
    summaries: dict[str, Summary] = defaultdict(Summary)
    by_name = {metric.name: metric.samples for metric in metrics}
    for sample in by_name.get(REQUESTS, []):
        summary = summaries[sample.labels["model"]]
        summary.outcomes[sample.labels["reason"]] += int(sample.value)
    for (model, stage), buckets in buckets_of(by_name.get(STAGE_SECONDS, [])).items():
        count, p50_s, p99_s = buckets[-1][1], quantile(0.5, buckets), quantile(0.99, buckets)
        summary = summaries[model]
        summary.stages[stage] = Quantiles(int(count), p50_s, p99_s)
        if stage == "total":
            summary.p50_s, summary.p99_s = p50_s, p99_s
    for (model,), buckets in buckets_of(by_name.get(BATCH_SIZE, [])).items():
        summaries[model].batches = list(batches(buckets))
    return summaries


Buckets = list[tuple[float, float]]  # upper bound, and how many were no larger


def buckets_of(samples: Iterable[Sample]) -> dict[tuple[str, ...], Buckets]:
    """Those of a histogram, by the values of its labels."""
    buckets: dict[tuple[str, ...], Buckets] = {}
    for sample in samples:
        if sample.name.endswith("_bucket"):
            labels = tuple(value for name, value in sample.labels.items() if name != "le")
            bucket = (float(sample.labels["le"]), sample.value)
            buckets.setdefault(labels, []).append(bucket)
    return buckets


def batches(buckets: Buckets) -> Iterator[tuple[float, int]]:
    """Images by the size of their batch: not cumulative, without empty sizes."""
    below = 0.0
    for upper, count in buckets:
        if count > below and not math.isinf(upper):
            yield upper, int(count - below)
        below = count


def quantile(share: float, buckets: Sequence[tuple[float, float]]) -> float:
    """As Prometheus's histogram_quantile: observations lie evenly spread within their bucket."""
    rank = share * buckets[-1][1]
    lower, below = 0.0, 0.0
    for upper, count in buckets:
        if count >= rank and not math.isinf(upper):
            return lower + (upper - lower) * (rank - below) / (count - below)
        lower, below = upper, count
    return buckets[-2][0]


def describe_traffic(model: str, summary: Summary) -> Facts:
    return {
        "model": model,
        "requests": summary.outcomes.total(),
        "errors": {reason: n for reason, n in summary.outcomes.items() if reason != "OK"},
        "p50_ms": summary.p50_s and round(summary.p50_s * 1e3, 1),
        "p99_ms": summary.p99_s and round(summary.p99_s * 1e3, 1),
        "stages": {stage: describe_stage(it) for stage, it in summary.stages.items()},
        "batches": summary.batches,
    }


def describe_stage(stage: Quantiles) -> Facts:
    return {
        "count": stage.count,
        "p50_ms": round(stage.p50_s * 1e3, 3),
        "p99_ms": round(stage.p99_s * 1e3, 3),
    }
