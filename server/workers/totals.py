"""The metrics of all workers as one.

Counts are summed, those of processes that have ended included, so that they never fall: Prometheus
would take a fall for a new start, and count everything again. What a killed process had counted
since it was last asked is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from operator import add

from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

SUMMED_GAUGES = {
    "convoy_in_flight",
    "convoy_in_flight_bytes",
    "convoy_runner_in_flight",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
}
FAILURES = {"convoy_model_failed"}  # of the whole, if one worker has them
Process = tuple[int, int]  # the worker, and how many processes it had before
TRITON = "convoy_triton_"  # all workers ask the same Triton, and get the same counts


class Totals:
    """Remembers what each process has counted."""

    def __init__(self) -> None:
        self._last: dict[Process, list[Metric]] = {}
        self._ended: list[Metric] = []

    def add_up(self, answers: Mapping[Process, str], running: Iterable[Process]) -> list[Metric]:
        """
        Args:
            answers: expositions in the format OpenMetrics, by process.
            running: the processes that have not ended, whether they answered or not.
        """
        for process, text in answers.items():
            self._last[process] = list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
        for process in set(self._last) - set(running):
            self._ended = merge([self._ended, counts(self._last.pop(process))])
        silent = [counts(last) for process, last in self._last.items() if process not in answers]
        answered = [self._last[process] for process in answers if process in self._last]
        return merge([*answered, *silent, self._ended])


def counts(metrics: Iterable[Metric]) -> list[Metric]:
    """Without what is so at a moment only, and without Triton's own."""
    return [
        metric
        for metric in metrics
        if metric.type in ("counter", "histogram") and not metric.name.startswith(TRITON)
    ]


def merge(parts: Iterable[Iterable[Metric]]) -> list[Metric]:
    merged: dict[str, Metric] = {}
    samples: dict[str, dict[Hashable, Sample]] = {}
    for metric in (metric for part in parts for metric in part):
        merged.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
        known, combine = samples.setdefault(metric.name, {}), choose_combination(metric)
        for sample in metric.samples:
            key = (sample.name, *sorted(sample.labels.items()))
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
