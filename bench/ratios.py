"""The median of measured ratios, and how sure it is."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy.stats import binom


class Median(NamedTuple):
    """A median with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def median(ratios: Sequence[float]) -> Median:
    """The interval is by the ranks of a binomial distribution; too few values give their range."""
    ordered, n = sorted(ratios), len(ratios)
    rank = max(1, int(binom.ppf(0.025, n, 0.5)))
    return Median(statistics.median(ordered), ordered[rank - 1], ordered[n - rank])
