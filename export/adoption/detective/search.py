"""The search for the setting whose answers are those of a reference.

It begins at the published recipes that come nearest, and changes one aspect after the other as long
as that helps. What is between the recipes is refined: sides pixel by pixel, mean and standard
deviation by the method of Gauss and Newton.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from export.adoption.detective.recipes import Space
from export.adoption.detective.time_limit import OutOfTime
from export.adoption.detective.trials import Trials
from export.preparation.given import Given
from export.samples.images import Probabilities

Floats = npt.NDArray[np.float64]

STARTS = 4  # published recipes from which it descends, unless one of them leads to the answers
MAX_SWEEPS = 8  # over all aspects
GAIN = 0.99  # of a loss; what gains less is none
EXACT = 1e-3  # a mean difference that decimals and rounded pixels make
CLOSE = 3e-3  # no worse than the rounding of pixels makes it: then no numbers are computed
ROUNDS, NEWTON_STEPS = 6, 4
PROBE = 0.01  # by which a number is changed to see what that does
DIGITS = 4  # of a mean or deviation that was computed


@dataclass(frozen=True)
class Unfinished:
    """What a search had no time for."""

    recipes: int = 0  # published ones that were not tried
    starts: int = 0  # of the nearest recipes, those from which it did not descend to the end

    def __bool__(self) -> bool:
        return bool(self.recipes or self.starts)


def search(trials: Trials, space: Space) -> Unfinished:
    """Fills `trials.tried`."""
    recipes = space.published()
    starts: list[Given] = []
    finished = 0
    try:
        starts += sorted(recipes, key=trials.loss)[:STARTS]
        for start in starts:
            best = descend(trials, space, start)
            if trials.loss(best) > CLOSE:
                best = refine(trials, space, best)
            if trials.loss(best) <= EXACT:
                break
            finished += 1
    except OutOfTime:
        untried = sum(recipe not in trials.tried for recipe in recipes)
        return Unfinished(untried, len(starts) - finished)
    return Unfinished()


def descend(trials: Trials, space: Space, best: Given) -> Given:
    """Changes one aspect after the other, until no change of one makes it better."""
    moves = (space.normalisations, space.channels, space.modes, space.sides, space.filters)
    for _ in range(MAX_SWEEPS):
        before = best
        for move in moves:
            best = better(trials, best, move(best))
        if best == before:
            break
    return best


def better(trials: Trials, best: Given, others: Sequence[Given]) -> Given:
    """The best of all; the first one unless another gains something."""
    nearest = min(others, key=trials.loss, default=best)
    return nearest if trials.loss(nearest) < GAIN * trials.loss(best) else best


def refine(trials: Trials, space: Space, best: Given) -> Given:
    """Computes mean and standard deviation, if nothing said them, and what else goes with them.

    Sharpness, size and contrast stand in for each other, so each other filter and side is tried
    with the numbers that suit it.
    """
    is_free = space.is_normalised and not (space.said.mean or space.said.std)
    if not is_free or trials.reference.scores is None:
        return best
    start = best
    for _ in range(ROUNDS):
        before, best = best, fit_normalisation(trials, best)
        slopes = _slopes(trials, best)
        for other in (*space.nearby(best), *space.sides(best), *space.modes(best)):
            best = better(trials, best, [_stepped(trials, other, slopes)])
        if best == before:
            break
    if best == start:
        return best
    return descend(trials, space, better(trials, _rounded(best), [best]))


def fit_normalisation(trials: Trials, best: Given) -> Given:
    """The network reads scale × pixel + shift: six numbers, for which least squares are solved."""
    for _ in range(NEWTON_STEPS):
        slopes = _slopes(trials, best)
        steps = [_stepped(trials, best, slopes, share) for share in (1, 0.5, 0.1)]
        nearest = better(trials, best, steps)
        if nearest == best:
            break
        best = nearest
    return best


def _slopes(trials: Trials, setting: Given) -> Floats:
    """M×6: by how much each score changes with each number."""
    numbers, errors = _to_numbers(setting), _errors(trials, setting)
    changed = (_from_numbers(setting, numbers + change) for change in PROBE * np.eye(len(numbers)))
    return np.stack([(_errors(trials, it) - errors) / PROBE for it in changed], axis=1)


def _stepped(trials: Trials, setting: Given, slopes: Floats, share: float = 1) -> Given:
    """With the numbers that make its errors small, as far as the slopes are right."""
    step, *_ = np.linalg.lstsq(slopes, -_errors(trials, setting), rcond=1e-6)
    return _from_numbers(setting, _to_numbers(setting) + share * step)


def _errors(trials: Trials, setting: Given) -> Floats:
    """Of all scores that the reference says."""
    expected = trials.reference.scores
    assert expected is not None
    difference: Probabilities = trials.answers(setting) - expected
    errors: Floats = difference[~np.isnan(expected)].astype(np.float64)
    return errors


def _to_numbers(setting: Given) -> Floats:
    """The logarithm of the scale, and the shift, of each channel."""
    assert setting.mean and setting.std
    mean, std = np.array(setting.mean), np.array(setting.std)
    return np.concatenate([-np.log(std), -mean / std])


def _from_numbers(setting: Given, numbers: Floats) -> Given:
    scales, shifts = np.exp(np.clip(numbers[:3], -10, 10)), numbers[3:]
    mean = np.minimum(-shifts / scales, 1)  # of pixels in 0..1
    return replace(
        setting, mean=tuple(map(float, mean)), std=tuple(float(1 / scale) for scale in scales)
    )


def _rounded(setting: Given) -> Given:
    assert setting.mean and setting.std
    return replace(
        setting,
        mean=tuple(round(number, DIGITS) for number in setting.mean),
        std=tuple(float(f"{number:.{DIGITS}g}") for number in setting.std),
    )
