"""What all workers have counted: their metrics, and the statistics of the Open Inference Protocol.

Counts are summed, those of processes that have ended included, so that they never fall: Prometheus
would take a fall for a new start, and count everything again. What a killed process had counted
since it was last asked is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from operator import add
from typing import Any, Generic, TypeVar

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from server.workers.supervised import Process

SUMMED_GAUGES = {
    "convoy_in_flight",
    "convoy_in_flight_bytes",
    "convoy_runner_in_flight",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
}
T = TypeVar("T")
Statistics = list[dict[str, Any]]  # of each version of a model, as Triton shows them
FAILURES = {"convoy_model_failed"}  # of the whole, if one worker has them
TRITON = "convoy_triton_"  # all workers ask the same Triton, and get the same counts


class Totals(Generic[T]):
    """Remembers what each process has counted.

    `merge` gives that of several processes together, `counts` what of it never falls.
    """

    def __init__(self, merge: Callable[[Iterable[T]], T], counts: Callable[[T], T]) -> None:
        self._merge = merge
        self._counts = counts
        self._last: dict[Process, T] = {}
        self._ended: list[T] = []

    def add_up(self, answers: Mapping[Process, T], running: Iterable[Process]) -> T:
        """
        Args:
            answers: what each process has counted.
            running: the processes that have not ended, whether they answered or not.
        """
        self._last |= answers
        for process in set(self._last) - set(running):
            self._ended = [self._merge([*self._ended, self._counts(self._last.pop(process))])]
        answered = [last for process, last in self._last.items() if process in answers]
        silent = [last for process, last in self._last.items() if process not in answers]
        return self._merge([*answered, *map(self._counts, silent), *self._ended])


# ---------------------------------------------------------------- metrics


def only_counts(metrics: Iterable[Metric]) -> list[Metric]:
    """Without what is so at a moment only, and without Triton's own."""
    return [
        metric
        for metric in metrics
        if metric.type in ("counter", "histogram") and not metric.name.startswith(TRITON)
    ]


def merge_metrics(parts: Iterable[Iterable[Metric]]) -> list[Metric]:
    merged: dict[str, Metric] = {}
    samples: dict[str, dict[Hashable, Sample]] = {}
    for metric in (metric for part in parts for metric in part):
        merged.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
        known, combine = samples.setdefault(metric.name, {}), choose_combination(metric)
        for sample in metric.samples:
            key = (sample.name, *sample.labels.values())
            before = known.get(key)
            value = combine(before.value, sample.value) if before else sample.value
            known[key] = sample._replace(value=value)
    for name, metric in merged.items():
        metric.samples = list(samples[name].values())
    return list(merged.values())


def choose_combination(metric: Metric) -> Callable[[float, float], float]:
    """What all have, such as readiness, the whole has."""
    if metric.name.startswith(TRITON) or metric.name in FAILURES:
        return max
    is_summed = metric.type in ("counter", "histogram") or metric.name in SUMMED_GAUGES
    return add if is_summed else min


# ---------------------------------------------------------------- statistics


def merge_statistics(parts: Iterable[Statistics]) -> Statistics:
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for row in (row for part in parts for row in part):
        version = row["name"], row["version"]
        merged[version] = add_counts(merged[version], row) if version in merged else row
    return list(merged.values())


def add_counts(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {name: add_values(name, value, other[name]) for name, value in one.items()}


def add_values(name: str, one: Any, other: Any) -> Any:
    if isinstance(one, dict):
        return add_counts(one, other)
    if name == "last_inference":
        return max(one, other)
    return one + other if isinstance(one, int) else one
