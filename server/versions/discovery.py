"""The runners come and go: one for each address that the names of --triton stand for."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from server.runners.base import Runner
from server.runners.tracked import TrackedRunner
from server.tasks import cancel_and_wait
from server.versions.manager import POLL_INTERVAL_S, VersionManager
from server.versions.pool import Pool

logger = logging.getLogger(__name__)

LOOKUP_TIMEOUT_S = 5.0


@dataclass
class Member:
    runner: TrackedRunner
    manager: VersionManager
    watch: asyncio.Task[None]


class Members:
    """Keeps the pool as `find` says: the names of the runners that there are now."""

    def __init__(
        self,
        pool: Pool,
        make_runner: Callable[[str], Runner],
        find: Callable[[], Awaitable[set[str]]],
    ) -> None:
        self._pool = pool
        self._make_runner = make_runner
        self._find = find
        self._members: dict[str, Member] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    async def watch(self) -> None:
        """Looks until cancelled; a fault of one look does not end the next."""
        while True:
            try:
                self._follow(await self._find())
            except OSError as error:
                self._pool.set_unavailable(str(error))
            except Exception:
                logger.exception("looking for the runners failed")
            await asyncio.sleep(POLL_INTERVAL_S)

    async def close(self) -> None:
        """What is in flight has been waited for, or is given up."""
        await cancel_and_wait(*self._leaving)
        for member in self._members.values():
            await stop_watching(member)
            await member.runner.close()

    def _follow(self, names: set[str]) -> None:
        for name in sorted(names - self._members.keys()):
            self._join(name)
        for name in sorted(self._members.keys() - names):
            member = self._members.pop(name)
            self._pool.remove(member.runner)
            logger.info("%s has left", name)
            task = asyncio.create_task(see_off(member))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def _join(self, name: str) -> None:
        runner = TrackedRunner(self._make_runner(name), name)
        manager = self._pool.add(runner)
        self._members[name] = Member(runner, manager, asyncio.create_task(manager.watch()))


async def see_off(member: Member) -> None:
    """What it was asked goes on to its end."""
    await stop_watching(member)
    await member.runner.idle()
    await member.runner.close()


async def stop_watching(member: Member) -> None:
    await cancel_and_wait(member.watch)
    await member.manager.close()


class TritonAddresses:
    """HOST:PORT of each address that the names stand for, as DNS has them now."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._last: dict[str, set[str]] = {}

    async def find(self) -> set[str]:
        """A name that cannot be looked up keeps the addresses that it had.

        Raises:
            OSError: none has any.
        """
        faults = []
        for name in self._names:
            try:
                self._last[name] = await look_up(name)
            except OSError as error:
                faults.append(f"{name} cannot be looked up ({error.strerror or error})")
        found = set().union(*self._last.values())
        if not found:
            raise OSError("; ".join(faults))
        return found


async def look_up(name: str) -> set[str]:
    """
    Raises:
        OSError: it has no address, or nobody answers.
    """
    host, _, port = name.rpartition(":")
    if is_address(host.strip("[]")):
        return {name}
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(LOOKUP_TIMEOUT_S):
        found = await loop.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    old = {f"{address[0]}:{port}" for family, *_, address in found if family == socket.AF_INET}
    # A machine's two addresses are one Triton, which need not listen at both.
    return old or {f"[{address[0]}]:{port}" for *_, address in found}


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
