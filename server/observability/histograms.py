"""Histograms for the event loop alone: without the locks of prometheus_client's own, which take
seven times as long. Any thread may collect them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class Series:
    """What was observed under one combination of labels."""

    def __init__(self, upper_bounds: Sequence[float]) -> None:
        self._upper_bounds = upper_bounds
        self.counts = [0] * (len(upper_bounds) + 1)  # per bucket; the last has no upper bound
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._upper_bounds, value)] += 1
        self.sum += value


class Histogram(Collector):
    def __init__(
        self,
        name: str,
        documentation: str,
        label_names: Sequence[str],
        upper_bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._label_names = label_names
        self._upper_bounds = upper_bounds
        self._bucket_names = [*(str(float(bound)) for bound in upper_bounds), "+Inf"]
        self._series: dict[tuple[str, ...], Series] = {}
        registry.register(self)

    def labels(self, *values: str) -> Series:
        series = self._series.get(values)
        return series or self._series.setdefault(values, Series(self._upper_bounds))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._label_names)
        for values, series in list(self._series.items()):
            buckets = zip(self._bucket_names, accumulate(series.counts[:]), strict=True)
            family.add_metric(values, list(buckets), series.sum)
        yield family
