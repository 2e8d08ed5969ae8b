"""Of one runner: what its repository holds, what is loaded there, and what has proven itself there.

Each second the manager looks at the runner's index. Of each model it wants the highest version
that proves itself (or the highest few, `keep_loaded`): a new version is loaded beside the old one,
proven, becomes the default (`pool`), and only then is the old one let go, after a grace period.
One that fails stays out, and is tried again with a growing pause; whatever served before serves on.

    AVAILABLE ── load, prove ──▶ READY ── superseded, grace period over ──▶ AVAILABLE
        ▲   └──────────────────▶ FAILED ── pause over ──┐
        └───────────────────────────────────────────────┘
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field

from convoy.v1 import classifier_pb2 as pb
from server.errors import RunnerUnavailable
from server.folder_names import FOLDER_NAME
from server.runners.base import LoadedModel, LoadFailed
from server.runners.tracked import TrackedRunner
from server.tasks import cancel_and_wait
from server.versions.proof import NotProven

logger = logging.getLogger(__name__)

POLL_INTERVAL_S = 1.0
INITIAL_BACKOFF_S, MAX_BACKOFF_S = 2.0, 60.0
MAX_RELOAD_S = 10.0  # that requests wait for a version that the runner lost

Prove = Callable[[TrackedRunner, str, LoadedModel], Awaitable[None]]


@dataclass(frozen=True)
class Servable:
    """A version proven on a runner, as one request sees it, whatever becomes of it meanwhile."""

    runner: TrackedRunner
    folder: str
    model: str
    version: str
    loaded: LoadedModel


@dataclass
class Version:
    """One folder of the repository, NAME.vN."""

    folder: str
    model: str
    number: int
    state: pb.State = pb.STATE_AVAILABLE
    reason: str = ""  # why it is not ready
    loaded: LoadedModel | None = None  # set while it is READY, and only then
    failures: int = 0
    retry_at_s: float = 0.0
    superseded_at_s: float | None = None
    lost_at_s: float = -math.inf  # when the runner no longer had it, and was not told to let it go

    def is_ready(self) -> bool:
        return self.state == pb.STATE_READY

    def is_worth_a_try(self) -> bool:
        return self.state != pb.STATE_FAILED or time.monotonic() >= self.retry_at_s

    def is_reloading(self) -> bool:
        is_on_its_way = self.state in (pb.STATE_AVAILABLE, pb.STATE_LOADING)
        return is_on_its_way and time.monotonic() < self.lost_at_s + MAX_RELOAD_S


@dataclass
class ServedModel:
    """The versions of one name, by number."""

    name: str
    versions: dict[int, Version] = field(default_factory=dict)
    present: set[int] = field(default_factory=set)  # in the repository when it was last looked at
    update: asyncio.Task[None] | None = None

    def highest_first(self) -> list[Version]:
        return [self.versions[number] for number in sorted(self.versions, reverse=True)]

    def best(self, count: int) -> list[Version]:
        """The highest ready versions; one that was withdrawn only while no other is ready."""
        ready = [version for version in self.highest_first() if version.is_ready()]
        here = [version for version in ready if version.number in self.present]
        return here[:count] or ready[:1]


class VersionManager:
    def __init__(
        self,
        runner: TrackedRunner,
        prove: Prove,
        serves: Callable[[str], int | None],
        *,
        wanted: Collection[str],
        keep_loaded: int,
        unload_grace_s: float,
    ) -> None:
        self.runner = runner
        self._prove = prove
        self._serves = serves  # the number that answers for a name, on all runners
        self._wanted = set(wanted)
        self._keep_loaded = keep_loaded
        self._unload_grace_s = unload_grace_s
        self._models: dict[str, ServedModel] = {}
        self._started = False  # every model found at the start has proven or failed
        self.runner_fault = "the runner is being started"  # why it is away; empty when it is there

    async def watch(self) -> None:
        """Looks until cancelled; a fault of one look does not end the next."""
        while True:
            try:
                await self.look()
            except Exception:
                logger.exception("looking at the repository failed")
            await asyncio.sleep(POLL_INTERVAL_S)

    async def close(self) -> None:
        await cancel_and_wait(*(model.update for model in self._models.values() if model.update))

    # ------------------------------------------------------------ what the pool asks

    def names(self) -> set[str]:
        return set(self._models)

    def has_started(self) -> bool:
        """Whether each version found at the start has proven or failed."""
        return self._started

    def versions(self, name: str) -> dict[int, Version]:
        model = self._models.get(name)
        return model.versions if model else {}

    def proven(self, name: str) -> set[int]:
        return {number for number, found in self.versions(name).items() if found.is_ready()}

    def present(self, name: str) -> set[int]:
        """In the repository when it was last looked at."""
        return self._models[name].present if name in self._models else set()

    def has_decided(self, name: str, number: int) -> bool | None:
        """Whether the version has proven itself here or failed; None: it is not to be had here."""
        version = self.versions(name).get(number)
        if version is None or number not in self.present(name):
            return None
        return version.state in (pb.STATE_READY, pb.STATE_FAILED)

    def servable(self, name: str, number: int) -> Servable | None:
        """The version, if it is proven here."""
        found = self.versions(name).get(number)
        if found is None or found.loaded is None:
            return None
        return Servable(self.runner, found.folder, found.model, str(number), found.loaded)

    def reloading(self, name: str, number: int | None) -> asyncio.Task[None] | None:
        """What to wait for, of a version (or any) that the runner lost and that is loaded again."""
        found = self.versions(name)
        if any(each.is_reloading() for each in found.values() if number in (None, each.number)):
            return self._updating(self._models[name])
        return None

    def note_loss(self, lost: Servable) -> None:
        """To be told when a version that was resolved is not loaded any more."""
        for version in self._all_versions():
            if version.loaded is lost.loaded:
                self._lose(version)

    def mark_unreachable(self, reason: str) -> None:
        """Nothing is asked of it until it has been looked at, and its versions are proven again."""
        if not self.runner_fault:
            logger.warning("%s is away: %s", self.runner.name, reason)
        self.runner_fault = reason
        for version in self._all_versions():
            if version.is_ready():
                forget(version, reason)

    # ------------------------------------------------------------ what the watch does

    async def look(self) -> None:
        """One look at the index; loading goes on beside it, one task a model."""
        try:
            index = await self.runner.index()
        except RunnerUnavailable as error:
            self.mark_unreachable(error.message)
            return
        self.runner_fault = ""
        self._take_in(index)
        updates = [self._updating(model) for model in self._models.values()]
        if not self._started:
            await asyncio.gather(*updates)
            self._started = True
            if not self._models:
                logger.warning("the repository holds no model: build one with export/build.py")

    def _take_in(self, index: dict[str, bool]) -> None:
        """New folders become versions; versions that the runner has lost are loaded again."""
        for model in self._models.values():
            model.present.clear()
        for folder, is_loaded in index.items():
            match = FOLDER_NAME.fullmatch(folder)
            if not match or (self._wanted and match["model"] not in self._wanted):
                continue
            number = int(match["version"])
            model = self._models.setdefault(match["model"], ServedModel(match["model"]))
            version = model.versions.setdefault(number, Version(folder, model.name, number))
            model.present.add(number)
            if version.is_ready() and not is_loaded:
                self._lose(version)

    def _lose(self, version: Version) -> None:
        logger.warning("%s is no longer loaded by the runner", version.folder)
        forget(version, "the runner let it go")
        version.lost_at_s = time.monotonic()

    def _updating(self, model: ServedModel) -> asyncio.Task[None]:
        if model.update is None or model.update.done():
            model.update = asyncio.create_task(self._update(model))
        return model.update

    async def _update(self, model: ServedModel) -> None:
        try:
            await self._find_best(model)
            await self._let_go(model)
            self._drop_absent(model)
        except RunnerUnavailable as error:
            self.mark_unreachable(error.message)

    async def _find_best(self, model: ServedModel) -> None:
        """From the highest down, until as many are proven as stay loaded; the rest is let be."""
        proven = 0
        for version in model.highest_first():
            if version.number not in model.present:
                continue
            if not version.is_ready() and version.is_worth_a_try():
                await self._try(version)
            proven += version.is_ready()
            if proven == self._keep_loaded:
                return

    async def _try(self, version: Version) -> None:
        version.state, version.reason = pb.STATE_LOADING, "loading"
        started_s = time.monotonic()
        try:
            loaded = await self.runner.load(version.folder)
            version.reason = "its golden images are on their way"
            await self._prove(self.runner, version.folder, loaded)
        except (LoadFailed, NotProven) as error:
            await self._fail(version, str(error))
        except RunnerUnavailable as error:
            forget(version, error.message)
            raise
        except Exception as error:
            logger.exception("%s could not be tried", version.folder)
            await self._fail(version, f"{type(error).__name__}: {error}")
        else:
            version.state, version.reason, version.loaded = pb.STATE_READY, "", loaded
            version.failures = 0
            version.superseded_at_s = None
            logger.info("%s is proven (%.1f s)", version.folder, time.monotonic() - started_s)

    async def _fail(self, version: Version, reason: str) -> None:
        pause_s = min(INITIAL_BACKOFF_S * 2**version.failures, MAX_BACKOFF_S)
        version.state, version.reason, version.loaded = pb.STATE_FAILED, reason, None
        version.failures += 1
        version.retry_at_s = time.monotonic() + pause_s
        logger.error("%s is not served: %s (next try in %.0f s)", version.folder, reason, pause_s)
        await self.runner.unload(version.folder)

    async def _let_go(self, model: ServedModel) -> None:
        """Unloads what was superseded a grace period ago, or has left the repository."""
        needed = model.best(self._keep_loaded) if model.present else []
        for version in model.highest_first():
            is_served = (
                version.number in model.present and self._serves(model.name) == version.number
            )
            if not version.is_ready() or version in needed or is_served:
                version.superseded_at_s = None
                continue
            if version.superseded_at_s is None:
                version.superseded_at_s = time.monotonic()
            elif time.monotonic() - version.superseded_at_s >= self._unload_grace_s:
                forget(version, "superseded")
                await self.runner.unload(version.folder)
                logger.info("%s is let go", version.folder)

    def _drop_absent(self, model: ServedModel) -> None:
        for version in model.highest_first():
            if version.number not in model.present and not version.is_ready():
                del model.versions[version.number]
        if not model.versions:
            del self._models[model.name]

    # ------------------------------------------------------------ small helpers

    def _all_versions(self) -> Iterable[Version]:
        return (version for model in self._models.values() for version in model.versions.values())


def forget(version: Version, reason: str) -> None:
    version.state, version.reason, version.loaded = pb.STATE_AVAILABLE, reason, None
