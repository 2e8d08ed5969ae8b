"""What the gateway counts, for Prometheus. Only names of known models become labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from convoy.v1 import classifier_pb2 as pb

STAGE_BUCKETS_S = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    def __init__(
        self, list_models: Callable[[], list[pb.Model]], in_flight: Callable[[], int]
    ) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "convoy_requests", "Requests by outcome", ["model", "reason"], registry=self._registry
        )
        self._stages = Histogram(
            "convoy_stage_seconds",
            "Time of a request in each stage",
            ["model", "stage"],
            buckets=STAGE_BUCKETS_S,
            registry=self._registry,
        )
        self._batch_size = Histogram(
            "convoy_batch_size",
            "Images that went through the network together, seen by each image",
            ["model"],
            buckets=BATCH_BUCKETS,
            registry=self._registry,
        )
        Gauge("convoy_in_flight", "Requests held now", registry=self._registry).set_function(
            lambda: float(in_flight())
        )
        self._registry.register(VersionCollector(list_models))

    def answered(self, response: pb.ClassifyResponse) -> None:
        self._requests.labels(response.model, "OK").inc()
        self._batch_size.labels(response.model).observe(response.served.batch_size)
        for stage in ("decode", "preprocess", "infer", "total"):
            seconds = getattr(response.timing, f"{stage}_us") / 1e6
            self._stages.labels(response.model, stage).observe(seconds)

    def refused(self, model: str, reason: str) -> None:
        self._requests.labels(model, reason).inc()

    def text(self) -> bytes:
        return generate_latest(self._registry)


class VersionCollector(Collector):
    """Each version that the registry knows, read when Prometheus asks."""

    def __init__(self, list_models: Callable[[], list[pb.Model]]) -> None:
        self._list_models = list_models

    def collect(self) -> Iterable[Metric]:
        ready = GaugeMetricFamily(
            "convoy_model_ready",
            "1 if the version is proven and answers",
            labels=["model", "version"],
        )
        for model in self._list_models():
            ready.add_metric([model.name, model.version], float(model.state == pb.STATE_READY))
        return [ready]
