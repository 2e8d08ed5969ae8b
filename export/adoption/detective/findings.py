"""What a search has found: the setting that fits, those that fit as well, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from export.adoption.detective.recipes import Space
from export.adoption.detective.trials import Trials
from export.preparation.given import Given
from export.samples.images import Probabilities

MAX_MEAN, MAX_ONE = 0.01, 0.05  # a score's difference where a setting fits; on average, and of one
OUTLIERS = 0.05  # share of the pictures that may differ by more
TWICE = 2  # so many times the best one's difference tells another setting apart
FINALISTS = 12  # settings of the search that are tried on all pictures
MANY = 5  # pictures that speak for it make a finding certain: by chance, 1 of 32
AMBIGUOUS = 0.1  # by so much do settings answer differently that cannot be told apart

# The rows of the report, and what of a setting each has.
ASPECTS: dict[str, tuple[str, ...]] = {
    "resize mode": ("resize_mode", "fill"),
    "resize": ("resize",),
    "interpolation": ("interpolation", "antialias"),
    "channels": ("channels",),
    "mean and std": ("mean", "std"),
}


@dataclass(frozen=True)
class Rival:
    """The nearest setting that differs in one aspect and can be told apart."""

    setting: Given
    difference: float  # from the reference, on average
    worse: int  # pictures
    better: int


@dataclass(frozen=True)
class Aspect:
    name: str
    rival: Rival | None  # None: every other value fits as well
    alike: tuple[Given, ...]  # those that differ in it and cannot be told apart
    is_fixed: bool  # it was said, or the network leaves no choice

    @property
    def certainty(self) -> str:
        if self.is_fixed:
            return "fixed"
        if self.alike or self.rival is None:
            return "open"
        return "certain" if self.rival.worse >= MANY and not self.rival.better else "likely"


@dataclass(frozen=True)
class Findings:
    best: Given
    differences: Probabilities  # N, of the best
    agreeing: int  # pictures that get the reference's label
    aspects: tuple[Aspect, ...]
    alike: tuple[Given, ...]  # all settings that were tried on all pictures and fit as well
    spread: float  # by how much those answer differently
    tried: int
    is_complete: bool  # the search ended before its time was over

    @property
    def fits(self) -> bool:
        count = len(self.differences)
        allowed = int(OUTLIERS * count)
        inner = np.sort(self.differences)[: count - allowed]
        return bool(inner.mean() <= MAX_MEAN and inner[-1] <= MAX_ONE)

    @property
    def is_ambiguous(self) -> bool:
        return self.spread > AMBIGUOUS


def judge(quick: Trials, whole: Trials, space: Space, is_complete: bool) -> Findings:
    """Tries the best settings of the search on all pictures, and what else they could be."""
    finalists = sorted(quick.tried, key=lambda it: (quick.loss(it), space.rarity(it)))
    near = [it for it in finalists if _is_alike(quick, it, finalists[0])]
    # Of those that are alike on the few pictures, the commonest ones may be more than FINALISTS.
    chosen = {*finalists[: FINALISTS // 2], *sorted(near, key=space.rarity)[:FINALISTS]}
    best = _commonest(whole, space, min(chosen, key=whole.loss), chosen)
    aspects = tuple(_aspects(quick, whole, space, best))
    alike = [it for it in whole.tried if it != best and _is_alike(whole, it, best)]
    answers = whole.answers(best)
    gaps = [float(np.abs(whole.answers(it) - answers).max(axis=1).mean()) for it in alike]
    return Findings(
        best=best,
        differences=whole.differences(best),
        agreeing=whole.reference.agreeing(answers),
        aspects=aspects,
        alike=tuple(sorted(alike, key=space.rarity)),
        spread=max(gaps, default=0.0),
        tried=len(quick.tried),
        is_complete=is_complete,
    )


def _commonest(trials: Trials, space: Space, best: Given, chosen: set[Given]) -> Given:
    alike = [it for it in chosen if _is_alike(trials, it, best)]
    return min(alike, key=lambda it: (space.rarity(it), trials.loss(it)))


def _is_alike(trials: Trials, setting: Given, best: Given) -> bool:
    """Whether it fits about as well."""
    return trials.loss(setting) <= TWICE * trials.loss(best) + trials.reference.resolution


def _aspects(quick: Trials, whole: Trials, space: Space, best: Given) -> Sequence[Aspect]:
    moves: dict[str, Callable[[Given], list[Given]]] = {
        "resize mode": space.modes,
        "resize": space.sides,
        "interpolation": space.filters,
        "channels": space.channels,
        "mean and std": space.normalisations,
    }
    aspects = []
    for name, move in moves.items():
        others = [it for it in move(best) if _differs_only_in(name, it, best)]
        aspects.append(_aspect(quick, whole, name, best, others))
    return aspects


def _differs_only_in(name: str, setting: Given, best: Given) -> bool:
    """Or, where that is another thing to do, in what comes with it."""
    with_it = {"resize mode": ("resize",), "channels": ("mean", "std")}
    allowed = {*ASPECTS[name], *with_it.get(name, ())}
    names = [field.name for field in fields(Given)]
    changed = {it for it in names if getattr(setting, it) != getattr(best, it)}
    return bool(changed & set(ASPECTS[name])) and changed <= allowed


def _aspect(
    quick: Trials, whole: Trials, name: str, best: Given, others: Sequence[Given]
) -> Aspect:
    """The nearest others are tried on all pictures, until one can be told apart."""
    alike: list[Given] = []
    for setting in sorted(others, key=quick.loss):
        if not _is_alike(whole, setting, best):
            return Aspect(name, _rival(whole, setting, best), tuple(alike), is_fixed=False)
        alike.append(setting)
    return Aspect(name, None, tuple(alike), is_fixed=not others)


def _rival(trials: Trials, setting: Given, best: Given) -> Rival:
    theirs, ours = trials.differences(setting), trials.differences(best)
    resolution = trials.reference.resolution
    return Rival(
        setting=setting,
        difference=float(theirs.mean()),
        worse=int((theirs > TWICE * ours + resolution).sum()),
        better=int((ours > TWICE * theirs + resolution).sum()),
    )
