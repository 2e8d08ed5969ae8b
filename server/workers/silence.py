"""Workers that run, and do not answer any more."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence

from server.workers.sockets import ask
from server.workers.supervised import Process, SupervisedWorker

logger = logging.getLogger(__name__)

# In a row: a supervisor that was stopped together with its workers misses one answer at most.
QUESTIONS = 3


async def kill_silent_workers(workers: Sequence[SupervisedWorker], timeout_s: float) -> None:
    """Kills each process that has not answered for so long, until it is cancelled."""
    wait_s = timeout_s / QUESTIONS / 2  # between two questions, and for the answer
    missed: Counter[Process] = Counter()

    async def question(worker: SupervisedWorker) -> None:
        process = worker.process
        if await ask(worker.settings.metrics_address, "/livez", timeout_s=wait_s):
            missed.pop(process, None)
            return
        missed[process] += 1
        if missed[process] >= QUESTIONS and worker.process == process:
            logger.error("worker %d has not answered for %g s", worker.number, timeout_s)
            worker.kill()

    while True:
        await asyncio.sleep(wait_s)
        await asyncio.gather(*(question(worker) for worker in workers if worker.is_listening))
