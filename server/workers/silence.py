"""Workers that run, and do nothing any more."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence

from server.workers.supervised import Process, SupervisedWorker

logger = logging.getLogger(__name__)

# In a row: a supervisor that was stopped together with its workers finds nothing new once.
LOOKS = 3


async def kill_silent_workers(
    workers: Sequence[SupervisedWorker], beats: Sequence[int], timeout_s: float
) -> None:
    """Kills each process whose event loop has stood still for so long, or twice as long before it
    listens, until it is cancelled.
    """
    seen: dict[Process, int] = {}
    missed: Counter[Process] = Counter()

    def looks_in_vain(worker: SupervisedWorker) -> int:
        process, beat = worker.process, beats[worker.number]
        is_new = not worker.pid or seen.get(process) != beat
        seen[process] = beat
        missed[process] = 0 if is_new else missed[process] + 1
        return missed[process]

    while True:
        await asyncio.sleep(timeout_s / LOOKS)
        for worker in workers:
            allowed = 1 if worker.is_listening else 2
            if looks_in_vain(worker) == allowed * LOOKS:
                stood_s = allowed * timeout_s
                logger.error("worker %d has stood still for %g s", worker.number, stood_s)
                worker.kill()
