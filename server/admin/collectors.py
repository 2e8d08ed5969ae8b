"""The metrics of this process: what it has counted, and its state at the moment of the request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from convoy.v1 import classifier_pb2 as pb
from server.admin.metrics import Collect
from server.admin.triton_statistics import TritonStatistics
from server.core.admission import Admission
from server.core.service import Service
from server.observability import logs
from server.versions.pool import Pool


def create_collect(service: Service) -> Collect:
    """What collects all metrics of this process."""
    pool = service.pool
    triton = TritonStatistics(pool)
    gateway = GatewayCollector(pool, service.admission, service.is_ready)
    state = [gateway, VersionCollector(pool), triton]

    async def collect() -> list[Metric]:
        await triton.read()
        counted = await asyncio.to_thread(service.metrics.collect)
        # After the counters: a request that ends between the two is missing, and not there twice.
        return [*counted, *(metric for collector in state for metric in collector.collect())]

    return collect


class GatewayCollector(Collector):
    """The gateway's state."""

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
        repository = GaugeMetricFamily(
            "convoy_repository_up",
            "1 if the runner can read its model repository",
            labels=["runner"],
        )
        held = GaugeMetricFamily(
            "convoy_runner_in_flight", "Images that the runner has now", labels=["runner"]
        )
        asked = CounterMetricFamily(
            "convoy_runner_images",
            "Images that the runner was given, by outcome; those of proofs are among them",
            labels=["runner", "outcome"],
        )
        abandoned = CounterMetricFamily(
            "convoy_sessions_abandoned",
            "Sessions of versions that could not be ended; each keeps a thread and memory",
            labels=["runner"],
        )
        for name, manager in self._pool.managers.items():
            up.add_metric([name], float(not manager.runner_fault))
            repository.add_metric([name], float(not manager.repository_fault))
            held.add_metric([name], float(manager.runner.in_flight))
            abandoned.add_metric([name], float(manager.runner.abandoned))
            for outcome, count in manager.runner.outcomes.items():
                asked.add_metric([name, outcome], float(count))
        return [up, repository, held, asked, abandoned]


class VersionCollector(Collector):
    """The state of each version in the pool."""

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
