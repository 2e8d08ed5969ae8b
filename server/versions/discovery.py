"""Runners come and go: the pool has one for each address that the names of --triton stand for."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from server.runners.base import MAX_LOAD_S, POLL_INTERVAL_S, Runner
from server.runners.staged import StagedRunner
from server.runners.tracked import TrackedRunner
from server.runners.triton import TritonRunner
from server.tasks import cancel_and_wait
from server.versions.manager import VersionManager
from server.versions.pool import Pool

logger = logging.getLogger(__name__)

LOOKUP_TIMEOUT_S = 5.0


class RunnerSource(Protocol):
    """Which runners there are."""

    async def find(self) -> set[str]:
        """The names of the runners that there are now.

        Raises:
            OSError: none can be found.
        """

    def connect(self, name: str) -> Runner:
        """The runner of that name, which `find` has returned."""


@dataclass
class Member:
    """A runner in the pool."""

    runner: TrackedRunner
    manager: VersionManager
    watch: asyncio.Task[None]

    async def stop_watching(self) -> None:
        await cancel_and_wait(self.watch)
        await self.manager.close()

    async def drain_and_close(self) -> None:
        """Closes the runner once what is in flight has been answered."""
        await self.stop_watching()
        await self.runner.idle()
        await self.runner.close()

    async def close(self) -> None:
        await self.stop_watching()
        await self.runner.close()


class Discovery:
    """Adds each runner that the source finds to the pool, and removes those it no longer finds.

    Of a repository in which `staged` is a folder, NAME.vN.staging, only that is served.
    """

    def __init__(self, pool: Pool, source: RunnerSource, staged: str | None = None) -> None:
        self._pool = pool
        self._source = source
        self._staged = staged
        self._members: dict[str, Member] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    async def watch(self) -> None:
        """Looks for runners until cancelled; a failed look does not prevent the next."""
        while True:
            try:
                self._update(await self._source.find())
            except OSError as error:
                self._pool.set_unavailable(str(error))
            except Exception:
                logger.exception("looking for the runners failed")
            await asyncio.sleep(POLL_INTERVAL_S)

    async def close(self) -> None:
        """Closes the runners; what is still in flight fails."""
        await cancel_and_wait(*self._leaving)
        for member in self._members.values():
            await member.close()

    def _update(self, names: set[str]) -> None:
        for name in sorted(names - self._members.keys()):
            self._add(name)
        for name in sorted(self._members.keys() - names):
            self._remove(name)

    def _add(self, name: str) -> None:
        runner = self._source.connect(name)
        if self._staged:
            runner = StagedRunner(runner, self._staged)
        tracked = TrackedRunner(runner, name)
        manager = self._pool.add(tracked)
        self._members[name] = Member(tracked, manager, asyncio.create_task(manager.watch()))

    def _remove(self, name: str) -> None:
        member = self._members.pop(name)
        self._pool.remove(member.runner)
        logger.info("%s was removed", name)
        task = asyncio.create_task(member.drain_and_close())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


class OneRunner:
    """The source of the runner that the gateway itself started."""

    def __init__(self, runner: Runner, name: str) -> None:
        self._runner = runner
        self._name = name

    async def find(self) -> set[str]:
        return {self._name}

    def connect(self, name: str) -> Runner:
        return self._runner


class TritonAddresses:
    """The source of the Tritons at HOST:PORT: one for each address that DNS has for a name now."""

    def __init__(self, names: Sequence[str], load_timeout_s: float = MAX_LOAD_S) -> None:
        self._names = names
        self._load_timeout_s = load_timeout_s
        self._last: dict[str, set[str]] = {}

    async def find(self) -> set[str]:
        """As in `RunnerSource`. A name that cannot be looked up keeps the addresses that it had."""
        faults = []
        for name in self._names:
            try:
                self._last[name] = await look_up(name)
            except OSError as error:
                faults.append(f"{name} cannot be looked up ({error.strerror or error})")
        addresses = set().union(*self._last.values())
        if not addresses:
            raise OSError("; ".join(faults))
        return addresses

    def connect(self, name: str) -> Runner:
        return TritonRunner(name, load_timeout_s=self._load_timeout_s)


async def look_up(name: str) -> set[str]:
    """
    Raises:
        OSError: the name has no address, or no name server answers.
    """
    host, _, port = name.rpartition(":")
    if is_address(host.strip("[]")):
        return {name}
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(LOOKUP_TIMEOUT_S):
        infos = await loop.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    ipv4 = {f"{address[0]}:{port}" for family, *_, address in infos if family == socket.AF_INET}
    # Two addresses of one machine are one Triton, which need not listen on both.
    return ipv4 or {f"[{address[0]}]:{port}" for *_, address in infos}


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
