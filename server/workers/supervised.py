"""One worker: its process, and the next one whenever a process ends without being told to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from server.errors import StartFailed
from server.settings import Settings
from server.workers.shared import LISTENING, Shared

logger = logging.getLogger(__name__)

INITIAL_BACKOFF_S, MAX_BACKOFF_S = 0.5, 30.0
# A process that ran for so long was not killed by what it was started with.
STABLE_S = 60.0

Process = tuple[int, int]  # the worker, and how many processes it had before


class SupervisedWorker:
    """`prepare` is called before each process."""

    def __init__(
        self,
        number: int,
        settings: Settings,
        context: SpawnContext,
        shared: Shared,
        prepare: Callable[[], None],
    ) -> None:
        self.number = number
        self.restarts = 0
        self.listening = asyncio.Event()
        self.settings = settings
        self._context = context
        self._shared = shared
        self._prepare = prepare
        self._process: SpawnProcess | None = None
        self._has_listened = False
        self._reload_is_due = False
        self._stopping = asyncio.Event()

    @property
    def process(self) -> Process:
        return self.number, self.restarts

    @property
    def is_listening(self) -> bool:
        return self.listening.is_set()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    async def keep_running(self) -> None:
        """Returns once it has been stopped.

        Raises:
            StartFailed: its first process could not start.
        """
        pause_s = INITIAL_BACKOFF_S
        while not self._stopping.is_set():
            started_s = time.monotonic()
            await asyncio.to_thread(self._prepare)
            end = await self._run_process()
            self._shared.clear(self.number)
            if self._stopping.is_set():
                return
            if not self._has_listened:
                raise StartFailed(end)
            if time.monotonic() - started_s > STABLE_S:
                pause_s = INITIAL_BACKOFF_S
            logger.error("%s; the next starts in %g s", end, pause_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
            pause_s = min(2 * pause_s, MAX_BACKOFF_S)
            self.restarts += 1

    def reload(self) -> None:
        """Passes SIGHUP on, which would end a process that still starts."""
        if self.is_listening:
            self._send(signal.SIGHUP)
        else:
            self._reload_is_due = True

    def stop(self) -> None:
        """Its process drains."""
        self._stopping.set()
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    async def _run_process(self) -> str:
        """Returns why there is no process any more."""
        ours, theirs = self._context.Pipe(duplex=False)
        arguments = (self.settings, self._shared, self.number, theirs, self._has_listened)
        name = f"convoy worker {self.number}"
        process = self._context.Process(target=start_worker, args=arguments, name=name, daemon=True)
        self._process = process
        with ours:
            process.start()
            theirs.close()
            await wait_until_readable(ours.fileno())
            fault = self._hear(ours)
            await wait_until_readable(process.sentinel)
        self.listening.clear()
        self._process = None
        process.join()
        return fault or f"worker {self.number} {describe_end(process.exitcode or 0)}"

    def _hear(self, connection: Connection) -> str:
        """Returns why the process cannot start; empty if it listens, or has just ended."""
        try:
            message: str = connection.recv()
        except EOFError:
            return ""
        if message == LISTENING:
            self._has_listened = True
            self.listening.set()
            if self._reload_is_due:
                self._reload_is_due = False
                self.reload()
        return message

    def _send(self, number: int) -> None:
        if self._process and self._process.is_alive() and self._process.pid:
            os.kill(self._process.pid, number)


def start_worker(*arguments: Any) -> None:
    """In the worker's process: the supervisor itself imports nothing that a gateway is made of."""
    from server.workers.worker import run_worker

    run_worker(*arguments)


def describe_end(status: int) -> str:
    return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"


async def wait_until_readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
