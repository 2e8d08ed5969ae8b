"""What the gateway counts, for Prometheus. Only names of known models become labels."""

from __future__ import annotations

import asyncio
import math
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib.metadata import version

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
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from convoy.v1 import classifier_pb2 as pb
from server.admin.triton_statistics import TritonStatistics
from server.core.admission import Admission
from server.observability import logs, tracing
from server.versions.pool import Pool

STAGE_BUCKETS_S = (
    *(0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0),
)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
STAGES = ("decode", "preprocess", "infer", "total")
STAGES_WITHIN_INFER = ("queue", "compute")  # not every runner tells

UNREAD_STATUSES = (400, 408, 431, 501, 503)  # as http_server.CODES has them

# A second series each, with the time when the first began.
disable_created_metrics()  # type: ignore[no-untyped-call]


@dataclass
class Summary:
    """Of one model since the start."""

    outcomes: Tally[str] = field(default_factory=Tally)  # by reason; "OK" is one of them
    p50_s: float | None = None  # None: nothing was answered yet
    p99_s: float | None = None


class Metrics:
    def __init__(
        self,
        pool: Pool,
        admission: Admission,
        is_ready: Callable[[], bool],
        triton: TritonStatistics,
    ) -> None:
        self._triton = triton
        self._instruments = CollectorRegistry()
        self._facts: list[Collector] = [
            GatewayCollector(pool, admission, is_ready),
            VersionCollector(pool),
            triton,
        ]
        self._requests = Counter(
            "convoy_requests",
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
            "convoy_stage_seconds",
            "Time of an answered request in each stage",
            ["model", "stage"],
            buckets=STAGE_BUCKETS_S,
            registry=self._instruments,
        )
        self._batch_size = Histogram(
            "convoy_batch_size",
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
        for status in UNREAD_STATUSES:
            self._unread.labels(status)  # 0, and not missing, until there is one
        Info("convoy_build", "The gateway's version", registry=self._instruments).info(
            {"version": version("convoy-serving")}
        )
        for collector in (ProcessCollector, GCCollector, PlatformCollector):
            collector(registry=self._instruments)

    def answered(self, response: pb.ClassifyResponse, image_bytes: int = 0) -> None:
        self._count(response.model, "OK", image_bytes)
        self._batch_size.labels(response.model).observe(response.served.batch_size)
        told = [stage for stage in STAGES_WITHIN_INFER if response.timing.HasField(f"{stage}_us")]
        for stage in (*STAGES, *told):
            seconds = getattr(response.timing, f"{stage}_us") / 1e6
            self._stages.labels(response.model, stage).observe(seconds)

    def refused(self, model: str, reason: str, image_bytes: int = 0) -> None:
        """`model` is empty where the client named one that is not there."""
        self._count(model, reason, image_bytes)

    def not_read(self, status: HTTPStatus) -> None:
        """A client that was too slow, too many, or sent what is no HTTP."""
        self._unread.labels(int(status)).inc()

    def _count(self, model: str, reason: str, image_bytes: int) -> None:
        self._requests.labels(tracing.door(), model, reason).inc()
        self._image_bytes.labels(tracing.door(), model).inc(image_bytes)

    async def snapshot(self) -> Snapshot:
        """All that there is to say now."""
        await self._triton.read()
        counted = await asyncio.to_thread(lambda: list(self._instruments.collect()))
        # Afterwards: a request that ends between the two is then missing, and not there twice.
        facts = [metric for collector in self._facts for metric in collector.collect()]
        return Snapshot([*counted, *facts])

    def summaries(self) -> dict[str, Summary]:
        """Of each model that was asked for. Takes milliseconds: to be called in a thread."""
        summaries: dict[str, Summary] = {}
        for metric in self._requests.collect():
            for sample in metric.samples:
                summary = summaries.setdefault(sample.labels["model"], Summary())
                summary.outcomes[sample.labels["reason"]] += int(sample.value)
        for model, buckets in self._total_buckets().items():
            summary = summaries.setdefault(model, Summary())
            summary.p50_s, summary.p99_s = quantile(0.5, buckets), quantile(0.99, buckets)
        return summaries

    def _total_buckets(self) -> dict[str, list[tuple[float, float]]]:
        """Of each model: upper bound in seconds, and how many took no longer."""
        found: dict[str, list[tuple[float, float]]] = {}
        for metric in self._stages.collect():
            for sample in metric.samples:
                if sample.name.endswith("_bucket") and sample.labels["stage"] == "total":
                    bucket = (float(sample.labels["le"]), sample.value)
                    found.setdefault(sample.labels["model"], []).append(bucket)
        return found


def metrics_route(metrics: Metrics) -> Route:
    """Prometheus's text, or OpenMetrics where the client asks for it."""

    async def show_metrics(request: Request) -> Response:
        snapshot = await metrics.snapshot()
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        # With 28 models it is 3,000 lines, which would hold up the event loop.
        text = await asyncio.to_thread(encode, snapshot)
        return Response(text, headers={"content-type": content_type})

    return Route("/metrics", show_metrics)


def quantile(share: float, buckets: Sequence[tuple[float, float]]) -> float:
    """As Prometheus's histogram_quantile: observations lie evenly spread within their bucket."""
    rank = share * buckets[-1][1]
    lower, below = 0.0, 0.0
    for upper, count in buckets:
        if count >= rank and not math.isinf(upper):
            return lower + (upper - lower) * (rank - below) / (count - below)
        lower, below = upper, count
    return buckets[-2][0]


class Snapshot(Collector):
    """What was collected, to be written down in whatever thread."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


class GatewayCollector(Collector):
    """The gateway as it is when Prometheus asks."""

    def __init__(self, pool: Pool, admission: Admission, is_ready: Callable[[], bool]) -> None:
        self._pool = pool
        self._admission = admission
        self._is_ready = is_ready

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("convoy_ready", "As /readyz says", float(self._is_ready()))
        yield from self._runners()
        yield GaugeMetricFamily(
            "convoy_in_flight", "Images held now", float(self._admission.in_flight)
        )
        yield GaugeMetricFamily(
            "convoy_in_flight_bytes",
            "Bytes of the requests held now",
            float(self._admission.in_flight_bytes),
        )
        yield CounterMetricFamily(
            "convoy_log_lines_lost", "Log lines that could not be written", logs.lost_lines()
        )

    def _runners(self) -> Iterable[Metric]:
        up = GaugeMetricFamily(
            "convoy_runner_up", "1 if the runner can be reached", labels=["runner"]
        )
        held = GaugeMetricFamily(
            "convoy_runner_in_flight", "Images that the runner has now", labels=["runner"]
        )
        asked = CounterMetricFamily(
            "convoy_runner_images",
            "Images that the runner was given, by outcome; those of proofs are among them",
            labels=["runner", "outcome"],
        )
        for name, manager in self._pool.managers.items():
            up.add_metric([name], float(not manager.runner_fault))
            held.add_metric([name], float(manager.runner.in_flight))
            for outcome, count in manager.runner.outcomes.items():
                asked.add_metric([name, outcome], float(count))
        return [up, held, asked]


class VersionCollector(Collector):
    """Each version that the pool knows, as it is when Prometheus asks."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def collect(self) -> Iterable[Metric]:
        labels = ["model", "version"]
        ready = GaugeMetricFamily(
            "convoy_model_ready", "1 if the version is proven and answers", labels=labels
        )
        failed = GaugeMetricFamily(
            "convoy_model_failed",
            "1 if the version could not be loaded or did not prove itself",
            labels=labels,
        )
        default = GaugeMetricFamily(
            "convoy_model_default", "1 if the version answers when none is named", labels=labels
        )
        info = InfoMetricFamily("convoy_model", "What a loaded version is", labels=labels)
        for model in self._pool.list():
            values = [model.name, model.version]
            ready.add_metric(values, float(model.state == pb.STATE_READY))
            failed.add_metric(values, float(model.state == pb.STATE_FAILED))
            default.add_metric(values, float(model.is_default))
            if model.state == pb.STATE_READY:
                info.add_metric(values, self._facts(model))
        return [ready, failed, default, info]

    def _facts(self, model: pb.Model) -> dict[str, str]:
        loaded = self._pool.resolve(model.name, model.version).loaded
        return {
            "precision": model.manifest.precision,
            "runtime": loaded.runtime,
            "device": loaded.device,
            "weights": model.manifest.weights.source,
            "manifest_digest": model.manifest_digest,
        }
