"""Triton's counts per version, for Prometheus.

Triton reports sums since it loaded the version, no distributions; their rates give means. More
metrics are on a port of its own (8002), where Prometheus can scrape them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector
from tritonclient.grpc import service_pb2

from server.errors import RunnerUnavailable
from server.folder_names import FOLDER_NAME
from server.runners.base import Runner
from server.runners.triton import TritonRunner
from server.versions.pool import Pool

STAGES = ("queue", "compute_input", "compute_infer", "compute_output")
LABELS = ["runner", "model", "version"]


class TritonStatistics(Collector):
    """`read` asks Triton before Prometheus collects, since `collect` cannot wait."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._models: dict[str, list[service_pb2.ModelStatistics]] = {}

    async def read(self) -> None:
        """Takes at most a second; a Triton that does not answer has no counts."""
        runners = [manager.runner for manager in self._pool.managers.values()]
        tritons = [runner for runner in runners if isinstance(runner.inner, TritonRunner)]
        answers = await asyncio.gather(*(read_statistics(runner.inner) for runner in tritons))
        self._models = dict(zip((runner.name for runner in tritons), answers, strict=True))

    def collect(self) -> Iterable[Metric]:
        if not self._models:
            return []
        requests = CounterMetricFamily(
            "convoy_triton_model_requests",
            "Requests that Triton answered, by outcome",
            labels=[*LABELS, "outcome"],
        )
        images = CounterMetricFamily(
            "convoy_triton_model_images", "Images that Triton computed", labels=LABELS
        )
        batches = CounterMetricFamily(
            "convoy_triton_model_batches",
            "Batches that Triton computed; images / batches is the mean size",
            labels=LABELS,
        )
        seconds = CounterMetricFamily(
            "convoy_triton_model_stage_seconds",
            "Total time of answered requests in each stage of Triton",
            labels=[*LABELS, "stage"],
        )
        for labels, model in self._named():
            sums = model.inference_stats
            requests.add_metric([*labels, "success"], sums.success.count)
            requests.add_metric([*labels, "fail"], sums.fail.count)
            images.add_metric(labels, model.inference_count)
            batches.add_metric(labels, model.execution_count)
            for stage in STAGES:
                seconds.add_metric([*labels, stage], getattr(sums, stage).ns / 1e9)
        return [requests, images, batches, seconds]

    def _named(self) -> Iterator[tuple[list[str], service_pb2.ModelStatistics]]:
        for runner, models in self._models.items():
            for model in models:
                if match := FOLDER_NAME.fullmatch(model.name):
                    yield [runner, match["model"], match["version"]], model


async def read_statistics(runner: Runner) -> list[service_pb2.ModelStatistics]:
    assert isinstance(runner, TritonRunner)
    try:
        return await runner.statistics()
    except RunnerUnavailable:
        return []
