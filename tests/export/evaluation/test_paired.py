import math

import numpy as np
import pytest

from export.evaluation.paired import Paired

# The margin, the pictures, those that only the reference gets right, those that only the candidate.
CASES = [(0.005, 1000, 12, 9), (0.1, 44, 7, 2), (0.02, 500, 0, 0), (0.3, 60, 25, 3)]


def likelihood(paired: Paired, drop: float, gain: float) -> float:
    """Of the trinomial; the probability of a loss is that of a gain plus the drop."""
    same = paired.total - paired.lost - paired.gained
    counts = ((paired.lost, gain + drop), (paired.gained, gain), (same, 1 - 2 * gain - drop))
    return sum(count * math.log(max(share, 1e-300)) for count, share in counts if count)


@pytest.mark.parametrize(("drop", "total", "lost", "gained"), CASES)
def test_the_score_is_that_of_the_most_likely_gain(
    drop: float, total: int, lost: int, gained: int
) -> None:
    """Found here by trying, in place of the paper's formula."""
    paired = Paired(total, lost, gained)
    gains = np.linspace(0, (1 - drop) / 2, 20_001)[:-1]
    gain = max(gains, key=lambda gain: likelihood(paired, drop, float(gain)))
    error = math.sqrt(total * (2 * gain + drop * (1 - drop)))
    assert paired.z(drop) == pytest.approx((lost - gained - total * drop) / error, rel=1e-3)


def test_the_bound_is_where_the_test_turns() -> None:
    paired = Paired(1000, 12, 9)
    bound = paired.upper_bound
    assert paired.drop == 0.003 < bound < 0.02
    assert paired.is_below(bound * 1.001) and not paired.is_below(bound * 0.999)


def test_a_network_that_answers_alike_needs_enough_pictures() -> None:
    """Without a single difference z² is n·d/(1-d)."""
    assert Paired(539, 0, 0).is_below(0.005)
    assert not Paired(538, 0, 0).is_below(0.005)
    assert not Paired(538, 0, 0).is_above(0.005)
    assert Paired(538, 0, 0).missing(0.005) == 1
    assert Paired(100, 0, 0).missing(0.005) == 439


def test_the_missing_pictures_are_enough_if_they_are_like_those_that_were_seen() -> None:
    """Three times as many show it, twice as many do not."""
    few = Paired(400, 1, 1)
    assert [Paired(400 * times, times, times).is_below(0.005) for times in (1, 2, 3)] == [
        False,
        False,
        True,
    ]
    missing = few.missing(0.005)
    assert missing and 400 < missing <= 800


def test_more_pictures_do_not_help_a_drop_that_is_seen() -> None:
    assert Paired(1000, 8, 2).missing(0.005) is None
    assert not Paired(1000, 8, 2).is_above(0.005)
    assert Paired(1000, 40, 2).is_above(0.005)


def test_one_in_twenty_of_the_worst_allowed_networks_passes() -> None:
    """The test keeps its level: 100,000 draws of a network that loses exactly the margin."""
    random = np.random.default_rng(0)
    draws = random.multinomial(3000, [0.015, 0.01, 0.975], size=100_000)
    distinct, counts = np.unique(draws[:, :2], axis=0, return_counts=True)
    passed = sum(
        int(count)
        for (lost, gained), count in zip(distinct.tolist(), counts, strict=True)
        if Paired(3000, lost, gained).is_below(0.005)
    )
    assert passed / 100_000 == pytest.approx(0.05, abs=0.005)
