"""The versions of one runner: what its repository holds, what is loaded, and what is proven.

Each second the manager polls the runner's index. Of each model it keeps the highest version that
proves itself loaded (or the highest few, `keep_loaded`): a new version is loaded beside the old one
and proven, becomes the default (see `pool`), and only then is the old one unloaded, after a grace
period. A version that fails is retried (see `retries`), while the old one goes on serving.

    AVAILABLE ── load, prove ──▶ READY ── superseded, grace period over ──▶ AVAILABLE
        ▲   └──────────────────▶ FAILED ── pause over ──┐
        └───────────────────────────────────────────────┘
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from convoy.v1 import classifier_pb2 as pb
from server.errors import RunnerUnavailable
from server.folder_names import FOLDER_NAME
from server.pipeline import Pipeline
from server.runners.base import (
    MAX_LOAD_S,
    POLL_INTERVAL_S,
    Hung,
    LoadedModel,
    LoadFailed,
    RepositoryEmpty,
    RepositoryLost,
)
from server.runners.tracked import TrackedRunner
from server.tasks import cancel_and_wait
from server.versions.proof import NotProven, prove
from server.versions.state import ManagedVersion, Servable, ServedModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadingPolicy:
    """Which models are served, and how many of their versions stay loaded for how long."""

    wanted: frozenset[str] = frozenset()  # names of models; empty: all
    keep_loaded: int = 1
    unload_grace_s: float = 5.0
    proof_timeout_s: float = MAX_LOAD_S


class DefaultVersions(Protocol):
    """What a manager asks of the pool, and tells it."""

    def default(self, name: str) -> int | None:
        """The number of the version that answers for a name on all runners."""

    def is_default_elsewhere(self, name: str, number: int) -> bool:
        """Whether another worker still answers with it."""

    def tick(self) -> None:
        """Decides the defaults again, since a version's state has changed."""


class VersionManager:
    """Loads, proves and unloads the versions of one runner."""

    def __init__(
        self,
        runner: TrackedRunner,
        pipeline: Pipeline,
        defaults: DefaultVersions,
        policy: LoadingPolicy,
    ) -> None:
        self.runner = runner
        self._pipeline = pipeline
        self._defaults = defaults
        self._policy = policy
        self._models: dict[str, ServedModel] = {}
        self._started = False
        self.runner_fault = "the runner is starting"  # why it is unreachable; empty: it is not
        self.repository_fault = ""  # why the repository cannot be read; empty: it can

    async def watch(self) -> None:
        """Polls until cancelled; a failed poll does not prevent the next."""
        while True:
            try:
                await self.poll()
            except Exception:
                logger.exception("polling the repository failed")
            await asyncio.sleep(POLL_INTERVAL_S)

    async def close(self) -> None:
        await cancel_and_wait(*(model.update for model in self._models.values() if model.update))

    # ------------------------------------------------------------ what the pool asks

    @property
    def fault(self) -> str:
        """Why nothing can be loaded."""
        return self.runner_fault or self.repository_fault

    def names(self) -> set[str]:
        return set(self._models)

    def has_model(self, name: str) -> bool:
        return name in self._models

    def has_started(self) -> bool:
        """Whether each version of the first poll has been proven or has failed."""
        return self._started

    def versions(self, name: str) -> dict[int, ManagedVersion]:
        model = self._models.get(name)
        return model.versions if model else {}

    def proven(self, name: str) -> set[int]:
        return {number for number, version in self.versions(name).items() if version.is_ready()}

    def is_proven(self, name: str, number: int) -> bool:
        version = self.versions(name).get(number)
        return version is not None and version.is_ready()

    def present(self, name: str) -> set[int]:
        """The numbers in the repository at the last poll."""
        return self._models[name].present if name in self._models else set()

    def has_decided(self, name: str, number: int) -> bool | None:
        """Whether the version is proven or has failed here; None: it is not available here."""
        version = self.versions(name).get(number)
        if version is None or number not in self.present(name):
            return None
        return version.state in (pb.STATE_READY, pb.STATE_FAILED)

    def servable(self, name: str, number: int) -> Servable | None:
        """The version, if it is proven here."""
        version = self.versions(name).get(number)
        return version.servable if version else None

    def reloading(self, name: str, number: int | None) -> asyncio.Task[None] | None:
        """The update that reloads a version (None: any) which the runner lost, if there is one."""
        versions = self.versions(name).values()
        if any(version.is_reloading() for version in versions if number in (None, version.number)):
            return self._updating(self._models[name])
        return None

    def note_loss(self, lost: Servable) -> None:
        """Called when a version that was resolved turned out not to be loaded any more."""
        for version in self._all_versions():
            if version.servable is lost:
                self._mark_lost(version)
        self._defaults.tick()

    def mark_unreachable(self, reason: str) -> None:
        """Nothing is sent to the runner until a poll succeeds and its versions are proven again."""
        if not self.runner_fault:
            logger.warning("%s is unreachable: %s", self.runner.name, reason)
        self.runner_fault = reason
        for version in self._all_versions():
            if version.is_ready():
                version.reset(reason)
        self._defaults.tick()

    # ------------------------------------------------------------ what the watch does

    async def poll(self) -> None:
        """Reads the index once; versions are loaded meanwhile, in one task per model."""
        try:
            index = await self._index()
        except RunnerUnavailable as error:
            self.mark_unreachable(error.message)
            return
        except RepositoryLost as error:
            self._set_faults(repository=str(error))
            return
        self._set_faults()
        self._take_over(index)
        self._defaults.tick()
        updates = [self._updating(model) for model in self._models.values()]
        if not self._started:
            await asyncio.gather(*updates)
            self._started = True
            self._defaults.tick()  # tells the other workers
            if not self._models:
                logger.warning("the repository holds no model: build one with export/build.py")

    async def _index(self) -> dict[str, bool]:
        """As the runner's; one in which there was never a version may be empty."""
        try:
            return await self.runner.index()
        except RepositoryEmpty:
            if self._models:
                raise
            return {}

    def _set_faults(self, *, repository: str = "") -> None:
        """The runner can be reached. Without its repository, what is loaded there serves on."""
        self.runner_fault = ""
        if repository and not self.repository_fault:
            logger.error("%s serves on without its repository: %s", self.runner.name, repository)
        if self.repository_fault and not repository:
            logger.info("%s can read its repository again", self.runner.name)
        self.repository_fault = repository

    def _take_over(self, index: dict[str, bool]) -> None:
        """New folders become versions; versions that the runner has lost will be reloaded."""
        for model in self._models.values():
            model.present.clear()
        for folder, is_loaded in index.items():
            match = FOLDER_NAME.fullmatch(folder)
            if not match or not self._is_wanted(match["model"]):
                continue
            number = int(match["version"])
            model = self._models.setdefault(match["model"], ServedModel(match["model"]))
            version = model.versions.setdefault(number, ManagedVersion(folder, model.name, number))
            model.present.add(number)
            if version.is_ready() and not is_loaded:
                self._mark_lost(version)

    def _is_wanted(self, name: str) -> bool:
        return not self._policy.wanted or name in self._policy.wanted

    def _mark_lost(self, version: ManagedVersion) -> None:
        logger.warning("%s is no longer loaded by the runner", version.folder)
        version.reset("the runner unloaded it")
        version.lost_at_s = time.monotonic()

    def _updating(self, model: ServedModel) -> asyncio.Task[None]:
        if model.update is None or model.update.done():
            model.update = asyncio.create_task(self._update(model))
        return model.update

    async def _update(self, model: ServedModel) -> None:
        try:
            await self._load_best(model)
            await self._unload_superseded(model)
            self._forget_absent(model)
        except RunnerUnavailable as error:
            self.mark_unreachable(error.message)

    async def _load_best(self, model: ServedModel) -> None:
        """From the highest version down, until as many are proven as stay loaded."""
        proven = 0
        for version in model.highest_first():
            if version.number not in model.present:
                continue
            if await version.may_be_tried(self.runner):
                await self._load_and_prove(version)
                self._defaults.tick()
            proven += version.is_ready()
            if proven == self._policy.keep_loaded:
                return

    async def _load_and_prove(self, version: ManagedVersion) -> None:
        version.state, version.reason = pb.STATE_LOADING, "loading"
        started_s = time.monotonic()
        try:
            await version.retries.begin(self.runner)
            loaded = await self.runner.load(version.folder)
            version.reason = "its golden images are being checked"
            await self._prove(version, loaded)
        except (LoadFailed, NotProven) as error:
            await self._reject(version, str(error), is_hung=isinstance(error, Hung))
        except RunnerUnavailable as error:
            version.reset(error.message)
            raise
        except Exception as error:
            logger.exception("%s could not be tried", version.folder)
            await self._reject(version, f"{type(error).__name__}: {error}")
        else:
            version.state, version.reason = pb.STATE_READY, ""
            version.servable = Servable(
                self.runner, version.folder, version.model, str(version.number), loaded
            )
            version.retries.succeeded()
            version.superseded_at_s = None
            logger.info("%s is proven (%.1f s)", version.folder, time.monotonic() - started_s)

    async def _prove(self, version: ManagedVersion, loaded: LoadedModel) -> None:
        limit_s = self._policy.proof_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await prove(self._pipeline, self.runner, version.folder, loaded)
        except TimeoutError as error:
            raise NotProven(f"its golden images were not answered within {limit_s:g} s") from error

    async def _reject(self, version: ManagedVersion, reason: str, *, is_hung: bool = False) -> None:
        version.state, version.reason, version.servable = pb.STATE_FAILED, reason, None
        is_ended = await self._unload(version)
        next_try = version.retries.failed(is_hung=is_hung or not is_ended)
        logger.error("%s is not served: %s (next try %s)", version.folder, reason, next_try)

    async def _unload(self, version: ManagedVersion) -> bool:
        """Whether its work has ended."""
        try:
            await self.runner.unload(version.folder)
        except Hung as error:
            logger.error("%s is abandoned: %s", version.folder, error)
            return False
        return True

    async def _unload_superseded(self, model: ServedModel) -> None:
        """Unloads what was superseded a grace period ago, or has left the repository."""
        needed = model.best(self._policy.keep_loaded) if model.present else []
        for version in model.highest_first():
            if not version.is_ready() or version in needed or self._is_default(model, version):
                version.superseded_at_s = None
                continue
            if version.superseded_at_s is None:
                version.superseded_at_s = time.monotonic()
            elif time.monotonic() - version.superseded_at_s >= self._policy.unload_grace_s:
                version.reset("superseded")
                self._defaults.tick()
                await self._unload(version)
                logger.info("%s is unloaded", version.folder)

    def _is_default(self, model: ServedModel, version: ManagedVersion) -> bool:
        if version.number not in model.present:
            return False
        is_default = self._defaults.default(model.name) == version.number
        return is_default or self._defaults.is_default_elsewhere(model.name, version.number)

    def _forget_absent(self, model: ServedModel) -> None:
        absent = [
            version.number
            for version in model.highest_first()
            if version.number not in model.present and not version.is_ready()
        ]
        for number in absent:
            del model.versions[number]
        if not model.versions:
            del self._models[model.name]
        if absent:  # a tick looks at all models, and this happens to each, every second
            self._defaults.tick()

    def _all_versions(self) -> Iterable[ManagedVersion]:
        return (version for model in self._models.values() for version in model.versions.values())
