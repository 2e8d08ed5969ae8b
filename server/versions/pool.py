"""Several runners as one: which version is the default, and which runner answers a request.

Each runner has a manager of its own, which loads and proves versions there. The default of a model
is the highest version that is proven. With several runners it moves up once each reachable one has
proven the new version or rejected it; runners that rejected it get no requests for it. Of those
that can answer, the one with the fewest images in flight is picked.

Defaults move in `tick` alone: when a manager reports a change, and once per second, since some
decisions depend on the time. Everything that requests and operators call only reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import itertools
import time
from collections.abc import Iterable, Mapping, Sequence

from convoy.preparation import describe_preparation
from convoy.v1 import classifier_pb2 as pb
from server.errors import (
    ModelNotFound,
    ModelNotReady,
    RunnerUnavailable,
    VersionNotFound,
    quote,
)
from server.folder_names import parse_version
from server.pipeline import Pipeline
from server.runners.base import POLL_INTERVAL_S
from server.runners.tracked import TrackedRunner
from server.versions.manager import LoadingPolicy, VersionManager
from server.versions.peers import Peers, to_notice
from server.versions.state import MAX_RELOAD_S, ManagedVersion, Servable

# Where runners have a version in different states, the first of these is reported.
REPORTED_STATES = (pb.STATE_READY, pb.STATE_LOADING, pb.STATE_FAILED, pb.STATE_AVAILABLE)
# Managers poll their repositories at different times, and these may be copies.
PROPAGATION_S = 3 * POLL_INTERVAL_S
HEAVY_FIELDS = ("labels", "golden_images", "parity")


class Pool:
    """The runners with their managers, and the default version of each model."""

    def __init__(
        self, pipeline: Pipeline, policy: LoadingPolicy, peers: Peers | None = None
    ) -> None:
        self._pipeline = pipeline
        self._peers = peers or Peers.none()
        self._policy = policy
        self._managers: dict[str, VersionManager] = {}  # by the name of their runner
        self._unavailable_reason = "there is no runner yet"  # while there is none
        self._defaults: dict[str, int] = {}
        self._first_proven_s: dict[tuple[str, int], float] = {}  # by model and number
        self._turns = itertools.count()
        self._last_turn: dict[str, int] = {}  # in which each runner was last picked

    # ------------------------------------------------------------ its runners

    @property
    def managers(self) -> Mapping[str, VersionManager]:
        return self._managers

    def add(self, runner: TrackedRunner) -> VersionManager:
        manager = VersionManager(runner, self._pipeline, self, self._policy)
        self._managers[runner.name] = manager
        return manager

    def remove(self, runner: TrackedRunner) -> None:
        """The runner gets no more requests; those in flight go on."""
        del self._managers[runner.name]
        self._last_turn.pop(runner.name, None)
        self.tick()

    def set_unavailable(self, reason: str) -> None:
        """Why there is no runner, in case there is none."""
        self._unavailable_reason = reason

    # ------------------------------------------------------------ which version is the default

    async def watch(self) -> None:
        """Ticks until cancelled."""
        while True:
            self.tick()
            await asyncio.sleep(POLL_INTERVAL_S)

    def tick(self) -> None:
        """Decides the defaults, and forgets versions that no manager has any more."""
        names = self._names()
        self._peers.refresh()
        for name in names:
            self._move_default(name)
        self._defaults = {name: self._defaults[name] for name in names if name in self._defaults}
        self._first_proven_s = {
            (name, number): seen_s
            for (name, number), seen_s in self._first_proven_s.items()
            if number in self._numbers(name)
        }
        if self._peers:
            why_not_ready = self._why_not_ready_here()
            self._peers.publish(to_notice(self._reachable(), self._defaults, why_not_ready))

    def is_default_elsewhere(self, name: str, number: int) -> bool:
        return self._peers.have_as_default(f"{name}.v{number}")

    def default(self, name: str) -> int | None:
        """The number of the version that answers when none is named; None: there is none."""
        number = self._defaults.get(name)
        if number is None:
            return None
        managers = self._reachable()
        return number if any(manager.is_proven(name, number) for manager in managers) else None

    def _move_default(self, name: str) -> None:
        """Up once all have decided; down only from what is withdrawn, or proven nowhere."""
        managers = self._reachable()
        proven = self._proven(name, managers)
        present = proven & set().union(*(manager.present(name) for manager in managers))
        decided = {number for number in present if self._have_decided(managers, name, number)}
        current = self._defaults.get(name, 0)
        better = {n for n in decided if n > current} if current in present else decided
        if better:
            self._defaults[name] = max(better)
        elif current not in proven and proven:
            self._defaults[name] = max(present or proven)

    def _have_decided(self, managers: Sequence[VersionManager], name: str, number: int) -> bool:
        """A manager without the version has not seen it yet, or never will."""
        seen_s = self._first_proven_s.setdefault((name, number), time.monotonic())
        is_new = time.monotonic() < seen_s + PROPAGATION_S
        decisions = [manager.has_decided(name, number) for manager in managers]
        decisions += self._peers.decisions(f"{name}.v{number}")
        return all(not is_new if decision is None else decision for decision in decisions)

    # ------------------------------------------------------------ what requests ask

    def has_model(self, name: str) -> bool:
        return any(manager.has_model(name) for manager in self._managers.values())

    def has_version(self, name: str, version: str) -> bool:
        return parse_version(version) in self._numbers(name)

    def resolve(self, name: str, version: str = "") -> Servable:
        """The version that answers, on the idlest runner where it is proven.

        Raises:
            ModelNotFound, VersionNotFound: there is none of that name or number.
            ModelNotReady, RunnerUnavailable: there is, and it cannot answer yet.
        """
        # Whether it is still proven there is what `_idlest` asks the runners.
        number = self._number(name, version) if version else self._defaults.get(name)
        if number is not None and (servable := self._idlest(name, number)):
            return servable
        self._check_fault(name)
        self._check_name(name)
        if number is not None and version:
            reason = reason_suffix(self._version(name, number))
            raise VersionNotFound(
                f"version {version} of {name} is not loaded{reason}; {self._loaded(name)}",
                model=name,
                version=version,
            )
        highest = self._version(name, max(self._numbers(name)))
        raise ModelNotReady(
            f"{name} is not ready{reason_suffix(highest)}",
            retry_after_s=POLL_INTERVAL_S,
            model=name,
        )

    async def find(self, name: str, version: str = "") -> Servable:
        """Like `resolve`, but waits while a version that the runner lost is loaded again.

        Several gateways may share a Triton, and one may unload what another still needs.
        """
        for _ in range(2):  # an update that is under way may have passed the version by
            with contextlib.suppress(ModelNotReady, VersionNotFound):
                return self.resolve(name, version)
            number = parse_version(version)
            updates = [manager.reloading(name, number) for manager in self._managers.values()]
            if not any(updates):
                break
            await asyncio.wait(
                [update for update in updates if update],
                timeout=MAX_RELOAD_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
        return self.resolve(name, version)

    def failover(self, lost: Servable, reason: str) -> Servable | None:
        """The same version on another runner, for a request whose runner's connection broke.

        If there is one, the broken runner gets no more requests until it is proven again.
        """
        other = self._idlest(lost.model, int(lost.version), but=lost.runner)
        if other and (manager := self._managers.get(lost.runner.name)):
            manager.mark_unreachable(reason)
        return other

    def note_loss(self, lost: Servable) -> None:
        """Called when a version that was resolved turned out not to be loaded any more."""
        if manager := self._managers.get(lost.runner.name):
            manager.note_loss(lost)

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
        """Why no runner can be reached; empty: one can."""
        managers = self._managers.values()
        faults = [manager.runner_fault for manager in managers] or [self._unavailable_reason]
        return "; ".join(faults) if all(faults) else ""

    @property
    def fault(self) -> str:
        """Why no runner can load anything; what is loaded answers, if its runner can be reached."""
        faults = [manager.fault for manager in self._managers.values()]
        return "; ".join(faults) if faults and all(faults) else self.runner_fault

    def is_ready(self) -> bool:
        return not self.why_not_ready()

    def why_not_ready(self) -> str:
        """Empty: this worker and all others are."""
        return self._why_not_ready_here() or self._peers.why_not_ready()

    def _why_not_ready_here(self) -> str:
        """Empty: each wanted model can answer; if none is named: all were tried, and one can."""
        names, wanted = self._names(), self._policy.wanted
        can_answer = {name for name in names if self.default(name)}
        can_all = wanted <= can_answer if wanted else self.has_started() and bool(can_answer)
        if can_all and not self.runner_fault:
            return ""
        waiting = [name for name in sorted(wanted) or names if name not in can_answer]
        return self.fault or "; ".join(map(self._why_not, waiting)) or "the repository is empty"

    def has_started(self) -> bool:
        """Whether all versions of a runner were tried once."""
        return any(manager.has_started() for manager in self._managers.values())

    # ------------------------------------------------------------ small helpers

    def _reachable(self) -> Sequence[VersionManager]:
        return [manager for manager in self._managers.values() if not manager.runner_fault]

    def _proven(self, name: str, managers: Iterable[VersionManager]) -> set[int]:
        return set().union(*(manager.proven(name) for manager in managers))

    def _idlest(self, name: str, number: int, but: TrackedRunner | None = None) -> Servable | None:
        servables = [
            servable
            for manager in self._reachable()
            if manager.runner is not but and (servable := manager.servable(name, number))
        ]
        if not servables:
            return None
        picked = min(servables, key=self._load) if len(servables) > 1 else servables[0]
        self._last_turn[picked.runner.name] = next(self._turns)
        return picked

    def _load(self, servable: Servable) -> tuple[int, int]:
        """Equally busy runners take turns."""
        return servable.runner.in_flight, self._last_turn.get(servable.runner.name, -1)

    def _names(self) -> Sequence[str]:
        return sorted(set().union(*(manager.names() for manager in self._managers.values())))

    def _numbers(self, name: str) -> set[int]:
        return set().union(*(manager.versions(name) for manager in self._managers.values()))

    def _version(self, name: str, number: int) -> ManagedVersion:
        """The version where its state is the first of REPORTED_STATES."""
        versions = [
            version
            for manager in self._managers.values()
            if (version := manager.versions(name).get(number))
        ]
        return min(versions, key=lambda version: REPORTED_STATES.index(version.state))

    def _message(self, name: str, number: int) -> pb.Model:
        version = self._version(name, number)
        message = pb.Model()
        if version.servable:
            message.CopyFrom(version.servable.loaded.facts)
        message.name, message.version = name, str(number)
        message.state, message.state_reason = version.state, version.reason
        message.is_default = version.is_ready() and number == self.default(name)
        message.preparation = describe_preparation(message)
        return message

    def _check_fault(self, name: str) -> None:
        if fault := self.fault:
            raise RunnerUnavailable(fault, retry_after_s=POLL_INTERVAL_S, model=name)

    def _check_name(self, name: str) -> None:
        if self.has_model(name):
            return
        self._check_fault(name)
        names = self._names()
        nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        known = f"{'nearest' if nearest else 'there are'}: {', '.join(nearest or names)}"
        raise ModelNotFound(
            f"no model is named {quote(name)}; {known if names else 'there is none'}", model=name
        )

    def _number(self, name: str, version: str) -> int:
        self._check_name(name)
        if self.has_version(name, version):
            return int(version)
        raise VersionNotFound(
            f"{name} has no version {quote(version)}; {self._loaded(name)}",
            model=name,
            version=version,
        )

    def _loaded(self, name: str) -> str:
        proven = self._proven(name, self._managers.values())
        numbers = ", ".join(str(number) for number in sorted(proven, reverse=True))
        return f"loaded: {numbers}" if proven else "none is loaded"

    def _why_not(self, name: str) -> str:
        numbers = self._numbers(name)
        if not numbers:
            return f"{name}: not in the repository"
        return name + reason_suffix(self._version(name, max(numbers)))


def reason_suffix(version: ManagedVersion) -> str:
    return f": {version.folder}: {version.reason}" if version.reason else ""
