"""Whether one network classifies fewer pictures correctly than another, from the same pictures.

Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the
paired-sample design", Statistics in Medicine 17: the score test of a difference of paired
proportions. Only the pictures count on which one network is right and the other is wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

CONFIDENCE = 0.95  # one-sided
Z = NormalDist().inv_cdf(CONFIDENCE)
BISECTIONS = 50


@dataclass(frozen=True)
class Paired:
    """The same pictures, answered by a reference and by a candidate."""

    total: int
    lost: int  # that only the reference classifies correctly
    gained: int  # that only the candidate classifies correctly

    @property
    def drop(self) -> float:
        """The share of pictures by which the candidate is worse; below 0 it is better."""
        return (self.lost - self.gained) / self.total

    def z(self, drop: float) -> float:
        """How many standard errors the measured drop lies above a true one of 0 < drop < 1.

        The probability of a gain, which the error depends on, is the most likely one if the drop
        is the true one.
        """
        n, lost, gained = self.total, self.lost, self.gained
        a, b, c = 2 * n, (2 * n - lost + gained) * drop - lost - gained, -gained * drop * (1 - drop)
        gain = (math.sqrt(max(b * b - 4 * a * c, 0)) - b) / (2 * a)
        return (lost - gained - n * drop) / math.sqrt(n * (2 * gain + drop * (1 - drop)))

    @property
    def upper_bound(self) -> float:
        """The true drop is below it with the confidence; 0 if even the smallest is refuted."""
        low, high = 0.0, 1.0
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            low, high = (low, middle) if self.z(middle) <= -Z else (middle, high)
        return high

    def is_below(self, drop: float) -> bool:
        return self.z(drop) <= -Z

    def is_above(self, drop: float) -> bool:
        return self.z(drop) >= Z

    def missing(self, drop: float) -> int | None:
        """How many more pictures would show that the drop is below, if they are like these.

        `z` grows with the square root of their number. None if they would never show it.
        """
        z = self.z(drop)
        return math.ceil(self.total * ((Z / z) ** 2 - 1)) if z < 0 else None
