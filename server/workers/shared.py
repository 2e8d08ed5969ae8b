"""The memory that the supervisor and its workers share."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing.context import SpawnContext

from server.core.ledger import LedgerMemory
from server.versions.peers import NoticeMemory

# What a worker tells its supervisor once its ports are open, in place of a reason why not.
LISTENING = ""


@dataclass(frozen=True)
class SharedMemory:
    """Handed to a process when it starts."""

    ledger: LedgerMemory
    notices: NoticeMemory

    @classmethod
    def create(cls, context: SpawnContext, workers: int) -> SharedMemory:
        ledger = LedgerMemory.create(context, workers)
        return cls(ledger, NoticeMemory.create(context, workers))

    def clear(self, worker: int) -> None:
        """The worker has ended: nothing of it is in flight, and nobody waits for it."""
        self.ledger.clear(worker)
        self.notices.clear(worker)
