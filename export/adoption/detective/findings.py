"""What a search has found: the setting that fits, those that fit as well, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields

import numpy as np

from export.adoption.detective.recipes import Space
from export.adoption.detective.search import Unfinished
from export.adoption.detective.time_limit import OutOfTime, TimeLimit
from export.adoption.detective.trials import Trials
from export.preparation.given import ASPECTS as MANIFEST_ASPECTS
from export.preparation.given import Given
from export.samples.images import Probabilities

MAX_MEAN, MAX_ONE = 0.01, 0.05  # a score's difference where a setting fits; on average, and of one
OUTLIERS = 0.05  # share of the pictures that may differ by more
TWICE = 2  # so many times the best one's difference tells another setting apart
FINAL_SHARE = 0.4  # of the time after the search in which these are tried
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
    values: int  # other ones; 0: it was said, or the network leaves no choice
    rival: Rival | None  # None: every other value that was tried fits as well
    alike: tuple[Given, ...]  # those that differ in it and cannot be told apart
    is_complete: bool  # the nearest that can be told apart was found, or there is none

    @property
    def untried(self) -> int:
        """Values for which there was no time."""
        return 0 if self.is_complete else self.values - len(self.alike)

    @property
    def certainty(self) -> str:
        if not self.values:
            return "fixed"
        if self.alike or (self.rival is None and self.is_complete):
            return "open"
        if self.rival is None:
            return "not tried"
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
    unfinished: Unfinished  # what the search had no time for

    @property
    def fits(self) -> bool:
        count = len(self.differences)
        allowed = int(OUTLIERS * count)
        inner = np.sort(self.differences)[: count - allowed]
        return bool(inner.mean() <= MAX_MEAN and inner[-1] <= MAX_ONE)

    @property
    def is_ambiguous(self) -> bool:
        return self.spread > AMBIGUOUS

    @property
    def assumed(self) -> list[str]:
        """The aspects that the pictures do not decide, in the words of a manifest."""
        undecided = [it.name for it in self.aspects if it.certainty in ("open", "not tried")]
        names = [name for aspect in undecided for name in ASPECTS[aspect]]
        return [words for name, words in MANIFEST_ASPECTS.items() if name in names]


def judge(
    quick: Trials, whole: Trials, space: Space, limit: TimeLimit, unfinished: Unfinished
) -> Findings:
    """Tries the best settings of the search on all pictures, and what else they could be."""
    limit.begin_part(FINAL_SHARE)
    best = _best(quick, whole, space)
    aspects = tuple(_aspects(quick, whole, space, best, limit))
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
        unfinished=unfinished,
    )


def _best(quick: Trials, whole: Trials, space: Space) -> Given:
    """On all pictures, the commonest of those that fit about as well as the nearest."""
    finalists = sorted(quick.tried, key=lambda it: (quick.loss(it), space.rarity(it)))
    near = [it for it in finalists if _is_alike(quick, it, finalists[0])]
    # Of those that are alike on the few pictures, the commonest ones may be more than FINALISTS.
    chosen = dict.fromkeys(
        [*finalists[: FINALISTS // 2], *sorted(near, key=space.rarity)[:FINALISTS]]
    )
    with suppress(OutOfTime):  # then of those that were tried: the first one always is
        for setting in chosen:
            whole.loss(setting)
    nearest = min(whole.tried, key=whole.loss)
    alike = [it for it in whole.tried if _is_alike(whole, it, nearest)]
    return min(alike, key=lambda it: (space.rarity(it), whole.loss(it)))


def _is_alike(trials: Trials, setting: Given, best: Given) -> bool:
    """Whether it fits about as well."""
    return trials.loss(setting) <= TWICE * trials.loss(best) + trials.reference.resolution


def _aspects(
    quick: Trials, whole: Trials, space: Space, best: Given, limit: TimeLimit
) -> Iterator[Aspect]:
    """Each has the same share of the time that is left."""
    moves: dict[str, Callable[[Given], list[Given]]] = {
        "resize mode": space.modes,
        "resize": space.sides,
        "interpolation": space.filters,
        "channels": space.channels,
        "mean and std": space.normalisations,
    }
    for number, (name, move) in enumerate(moves.items()):
        others = [it for it in move(best) if _differs_only_in(name, it, best)]
        limit.begin_part(1 / (len(moves) - number))
        yield _aspect(quick, whole, name, best, others)


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
    rival, is_complete = None, True
    try:
        for setting in sorted(others, key=quick.loss):
            if not _is_alike(whole, setting, best):
                rival = _rival(whole, setting, best)
                break
            alike.append(setting)
    except OutOfTime:
        is_complete = False
    return Aspect(name, len(others), rival, tuple(alike), is_complete)


def _rival(trials: Trials, setting: Given, best: Given) -> Rival:
    theirs, ours = trials.differences(setting), trials.differences(best)
    resolution = trials.reference.resolution
    return Rival(
        setting=setting,
        difference=float(theirs.mean()),
        worse=int((theirs > TWICE * ours + resolution).sum()),
        better=int((ours > TWICE * theirs + resolution).sum()),
    )
