"""What a manager knows of each version on its runner, and of the versions of a name."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field

from convoy.v1 import classifier_pb2 as pb
from server.runners.base import LoadedModel, Runner
from server.runners.tracked import TrackedRunner
from server.versions.retries import Retries

MAX_RELOAD_S = 10.0  # that requests wait for a version that the runner lost


@dataclass(frozen=True)
class Servable:
    """A version proven on a runner, as one request sees it, whatever becomes of it meanwhile."""

    runner: TrackedRunner
    folder: str
    model: str
    version: str
    loaded: LoadedModel


@dataclass
class ManagedVersion:
    """One folder of the repository, NAME.vN."""

    folder: str
    model: str
    number: int
    state: pb.State = pb.STATE_AVAILABLE
    reason: str = ""  # why it is not ready
    servable: Servable | None = None  # set while it is READY, and only then
    superseded_at_s: float | None = None
    lost_at_s: float = -math.inf  # when the runner unloaded it without being asked to

    def __post_init__(self) -> None:
        self.retries = Retries(self.folder)

    def is_ready(self) -> bool:
        return self.state == pb.STATE_READY

    async def may_be_tried(self, runner: Runner) -> bool:
        if self.is_ready():
            return False
        return self.state != pb.STATE_FAILED or await self.retries.is_due(runner)

    def is_reloading(self) -> bool:
        is_pending = self.state in (pb.STATE_AVAILABLE, pb.STATE_LOADING)
        return is_pending and time.monotonic() < self.lost_at_s + MAX_RELOAD_S

    def reset(self, reason: str) -> None:
        """It is no longer loaded."""
        self.state, self.reason, self.servable = pb.STATE_AVAILABLE, reason, None


@dataclass
class ServedModel:
    """The versions of one name, by number."""

    name: str
    versions: dict[int, ManagedVersion] = field(default_factory=dict)
    present: set[int] = field(default_factory=set)  # in the repository at the last poll
    update: asyncio.Task[None] | None = None

    def highest_first(self) -> list[ManagedVersion]:
        return [self.versions[number] for number in sorted(self.versions, reverse=True)]

    def best(self, count: int) -> list[ManagedVersion]:
        """The highest ready versions; a withdrawn one only while no other is ready."""
        ready = [version for version in self.highest_first() if version.is_ready()]
        present = [version for version in ready if version.number in self.present]
        return present[:count] or ready[:1]
