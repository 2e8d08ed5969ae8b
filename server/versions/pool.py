"""What several runners have, as one: which version is the default, and who answers a request.

Each runner has a manager of its own, which loads and proves there. The default of a model is the
highest version that has proven itself; with several runners it moves up once each that can be
reached has proven the new version or rejected it, and whoever rejected it is not asked. Of those
that can answer, the one with the least in flight is picked.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import itertools
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from convoy.v1 import classifier_pb2 as pb
from server.errors import ModelNotFound, ModelNotReady, RunnerUnavailable, VersionNotFound
from server.runners.tracked import TrackedRunner
from server.versions.manager import MAX_RELOAD_S, POLL_INTERVAL_S, Servable, Version, VersionManager

# Where several runners know a version, they tell of it in this order.
MAX_SHOWN = (pb.STATE_READY, pb.STATE_LOADING, pb.STATE_FAILED, pb.STATE_AVAILABLE)
# Runners look at their repositories by turns, and these may be copies.
PROPAGATION_S = 3 * POLL_INTERVAL_S
HEAVY_FIELDS = ("labels", "golden_images", "parity")


class Pool:
    def __init__(
        self, wanted: Collection[str], register: Callable[[TrackedRunner], VersionManager]
    ) -> None:
        self._wanted = set(wanted)
        self._register = register
        self._managers: dict[str, VersionManager] = {}  # by the name of their runner
        self._nobody = "no runner is there yet"  # why there is none, while there is none
        self._defaults: dict[str, int] = {}
        self._first_seen_s: dict[tuple[str, int], float] = {}  # when a version was proven somewhere
        self._turns = itertools.count()
        self._last_turn: dict[str, int] = {}  # in which each runner was last picked

    # ------------------------------------------------------------ who belongs to it

    @property
    def managers(self) -> Mapping[str, VersionManager]:
        return self._managers

    def add(self, runner: TrackedRunner) -> VersionManager:
        manager = self._managers[runner.name] = self._register(runner)
        return manager

    def remove(self, runner: TrackedRunner) -> None:
        """It is asked nothing more; what it was asked goes on."""
        del self._managers[runner.name]

    def set_unavailable(self, reason: str) -> None:
        """Why nobody could be found to be added."""
        self._nobody = reason

    # ------------------------------------------------------------ what requests ask

    def has_model(self, name: str) -> bool:
        return any(name in each.names() for each in self._managers.values())

    def resolve(self, name: str, version: str = "") -> Servable:
        """The version that answers, on the idlest runner where it is proven.

        Raises:
            ModelNotFound, VersionNotFound: there is none of that name or number.
            ModelNotReady, RunnerUnavailable: there is, and it cannot answer yet.
        """
        number = self._number(name, version) if version else self.default(name)
        if number is not None and (found := self._idlest(name, number)):
            return found
        if self.runner_fault:
            raise RunnerUnavailable(self.runner_fault, retry_after_s=POLL_INTERVAL_S, model=name)
        self._check_name(name)
        if number is not None and version:
            why = because(self._version(name, number))
            raise VersionNotFound(
                f"version {version} of {name} is not loaded{why}; {self._loaded(name)}",
                model=name,
                version=version,
            )
        highest = self._version(name, max(self._numbers(name)))
        raise ModelNotReady(
            f"{name} is not ready{because(highest)}", retry_after_s=POLL_INTERVAL_S, model=name
        )

    async def find(self, name: str, version: str = "") -> Servable:
        """As resolve; a version that the runner lost is waited for while it is loaded again.

        Several gateways may share a Triton, and one lets go of what another still asks.
        """
        for _ in range(2):  # an update that is under way may have passed the version by
            with contextlib.suppress(ModelNotReady, VersionNotFound):
                return self.resolve(name, version)
            number = int(version) if version.isdecimal() else None
            under_way = [each.reloading(name, number) for each in self._managers.values()]
            if not any(under_way):
                break
            await asyncio.wait(
                [task for task in under_way if task],
                timeout=MAX_RELOAD_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
        return self.resolve(name, version)

    def failover(self, lost: Servable, reason: str) -> Servable | None:
        """Another runner with the same version, for what was asked of one whose connection broke.

        Where there is one, nothing more is asked of the broken one until it is proven again.
        """
        other = self._idlest(lost.model, int(lost.version), but=lost.runner)
        if other and (manager := self._managers.get(lost.runner.name)):
            manager.mark_unreachable(reason)
        return other

    def note_loss(self, lost: Servable) -> None:
        """To be told when a version that was resolved is not loaded any more."""
        if manager := self._managers.get(lost.runner.name):
            manager.note_loss(lost)

    def default(self, name: str) -> int | None:
        """The number of the version that answers when none is named."""
        reachable = [each for each in self._managers.values() if not each.runner_fault]
        proven = set().union(*(each.proven(name) for each in reachable))
        here = proven & set().union(*(each.present(name) for each in reachable))
        decided = {n for n in here if self._have_decided(reachable, name, n)}
        current = self._defaults.get(name, 0)
        # Up once all have decided; down only from what is withdrawn, or proven nowhere any more.
        better = {n for n in decided if n > current} if current in here else decided
        if better:
            self._defaults[name] = max(better)
        elif current not in proven:
            if not proven:
                return None
            self._defaults[name] = max(here or proven)
        return self._defaults[name]

    def describe(self, name: str, version: str = "") -> pb.Model:
        """All facts of a version; of one that is not loaded, its state and the reason."""
        number = self._number(name, version) if version else self.default(name)
        self._check_name(name)
        return self._message(name, number or max(self._numbers(name)))

    def list(self) -> list[pb.Model]:
        """Every version, without its labels, golden images and parity report."""
        messages = [
            self._message(name, number)
            for name in self._names()
            for number in sorted(self._numbers(name), reverse=True)
        ]
        for message in messages:
            for heavy in HEAVY_FIELDS:
                message.ClearField(heavy)
        return messages

    # ------------------------------------------------------------ what operators ask

    @property
    def runner_fault(self) -> str:
        """Why no runner can be asked; empty where one can."""
        faults = [each.runner_fault for each in self._managers.values()] or [self._nobody]
        return "; ".join(faults) if all(faults) else ""

    def is_ready(self) -> bool:
        """Each of `wanted` can answer; without, all found at the start were tried, and one can."""
        if self.runner_fault:
            return False
        can_answer = {name for name in self._names() if self.default(name)}
        if self._wanted:
            return self._wanted <= can_answer
        has_started = any(each.has_started() for each in self._managers.values())
        return has_started and bool(can_answer)

    def why_not_ready(self) -> str:
        if self.runner_fault:
            return self.runner_fault
        names = sorted(self._wanted) or self._names()
        waiting = [name for name in names if not self.default(name)]
        return "; ".join(map(self._why_not, waiting)) or "the repository is empty"

    # ------------------------------------------------------------ small helpers

    def _idlest(self, name: str, number: int, but: TrackedRunner | None = None) -> Servable | None:
        holders = [
            found
            for each in self._managers.values()
            if not each.runner_fault and each.runner is not but
            if (found := each.servable(name, number))
        ]
        if not holders:
            return None
        picked = min(holders, key=self._load)
        self._last_turn[picked.runner.name] = next(self._turns)
        return picked

    def _load(self, servable: Servable) -> tuple[int, int]:
        """Of equally busy ones, whoever has waited longest."""
        return servable.runner.in_flight, self._last_turn.get(servable.runner.name, -1)

    def _have_decided(self, managers: Sequence[VersionManager], name: str, number: int) -> bool:
        """Whoever does not have the version has not seen it yet, or never will."""
        seen_s = self._first_seen_s.setdefault((name, number), time.monotonic())
        is_news = time.monotonic() < seen_s + PROPAGATION_S
        decisions = [each.has_decided(name, number) for each in managers]
        return all(not is_news if decision is None else decision for decision in decisions)

    def _names(self) -> Sequence[str]:
        return sorted(set().union(*(each.names() for each in self._managers.values())))

    def _numbers(self, name: str) -> set[int]:
        return set().union(*(each.versions(name) for each in self._managers.values()))

    def _version(self, name: str, number: int) -> Version:
        """As it is where it is furthest."""
        found = [
            version
            for each in self._managers.values()
            if (version := each.versions(name).get(number))
        ]
        return min(found, key=lambda version: MAX_SHOWN.index(version.state))

    def _message(self, name: str, number: int) -> pb.Model:
        version = self._version(name, number)
        message = pb.Model()
        if version.loaded:
            message.CopyFrom(version.loaded.facts)
        message.name, message.version = name, str(number)
        message.state, message.state_reason = version.state, version.reason
        message.is_default = version.is_ready() and number == self.default(name)
        return message

    def _check_name(self, name: str) -> None:
        if self.has_model(name):
            return
        if self.runner_fault:
            raise RunnerUnavailable(self.runner_fault, retry_after_s=POLL_INTERVAL_S, model=name)
        names = self._names()
        nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        known = f"{'nearest' if nearest else 'there are'}: {', '.join(nearest or names)}"
        raise ModelNotFound(
            f"no model is named {name!r}; {known if names else 'there is none'}", model=name
        )

    def _number(self, name: str, version: str) -> int:
        self._check_name(name)
        if version.isdecimal() and int(version) in self._numbers(name):
            return int(version)
        raise VersionNotFound(
            f"{name} has no version {version!r}; {self._loaded(name)}", model=name, version=version
        )

    def _loaded(self, name: str) -> str:
        proven = set().union(*(each.proven(name) for each in self._managers.values()))
        numbers = ", ".join(str(number) for number in sorted(proven, reverse=True))
        return f"loaded: {numbers}" if proven else "none is loaded"

    def _why_not(self, name: str) -> str:
        numbers = self._numbers(name)
        if not numbers:
            return f"{name}: not in the repository"
        return name + because(self._version(name, max(numbers)))


def because(version: Version) -> str:
    return f": {version.folder}: {version.reason}" if version.reason else ""
