"""What the supervisor and its workers share: memory, and a folder of sockets."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from typing import Any

from server.core.ledger import LedgerMemory
from server.versions.peers import NoticeMemory

# What a worker tells its supervisor once its ports are open, in place of a reason why not.
LISTENING = ""


@dataclass(frozen=True)
class Shared:
    """Handed to a process when it starts."""

    ledger: LedgerMemory
    notices: NoticeMemory
    beats: Any  # of each worker, counted while its event loop turns
    folder: str

    @classmethod
    def create(cls, context: SpawnContext, workers: int, folder: str) -> Shared:
        ledger = LedgerMemory.create(context, workers)
        notices = NoticeMemory.create(context, workers)
        return cls(ledger, notices, context.RawArray("Q", workers), folder)

    @property
    def supervisor_address(self) -> str:
        return f"unix:{self.folder}/supervisor"

    def worker_address(self, worker: int) -> str:
        return f"unix:{self.folder}/{worker}"

    def clear(self, worker: int) -> None:
        """The worker has ended: nothing of it is in flight, and nobody waits for it."""
        self.ledger.clear(worker)
        self.notices.clear(worker)
