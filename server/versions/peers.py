"""What the workers of one gateway tell each other, in memory that they share.

Like several runners, workers move a default once each of them has proven the new version or
rejected it, and keep the old one loaded while it is the default of any. None is ready before all
are, since whoever asks one of them sends requests to all. Each writes its own notice and reads
those of the others, without a lock: a notice that is being written does not match its checksum, and
the one before it counts meanwhile.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from multiprocessing.context import SpawnContext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server.versions.manager import VersionManager

NOTICE_BYTES = 64 << 10  # of each worker: some thousand versions
HEADER = struct.Struct("<II")  # length and checksum of the text
NOTHING = bytes(HEADER.size)


@dataclass(frozen=True)
class Notice:
    """Folders of the repository, as one worker has them, and whether it is ready."""

    decided: list[str]  # proven, or failed
    pending: list[str]  # neither yet
    defaults: list[str]
    why_not_ready: str = ""


STARTING = Notice([], [], [], "a worker is starting")


@dataclass(frozen=True)
class NoticeMemory:
    """Shared by the supervisor and its workers; it is handed to a process when it starts."""

    workers: int
    text: Any  # bytes

    @classmethod
    def create(cls, context: SpawnContext, workers: int) -> NoticeMemory:
        """All workers are to be waited for."""
        memory = cls(workers, context.RawArray("B", workers * NOTICE_BYTES))
        for worker in range(workers):
            write_notice(memory.place(worker), STARTING)
        return memory

    def place(self, worker: int) -> memoryview:
        return memoryview(self.text).cast("B")[worker * NOTICE_BYTES : (worker + 1) * NOTICE_BYTES]

    def clear(self, worker: int) -> None:
        """The worker has ended: nobody waits for it."""
        self.place(worker)[: HEADER.size] = NOTHING


def write_notice(place: memoryview, notice: Notice) -> None:
    """One that is too long is none: nobody waits for that worker."""
    text = json.dumps(asdict(notice)).encode()
    if len(text) > NOTICE_BYTES - HEADER.size:
        text = b""
    header = HEADER.pack(len(text), zlib.crc32(text)) if text else NOTHING
    if header != bytes(place[: HEADER.size]):
        place[HEADER.size : HEADER.size + len(text)] = text
        place[: HEADER.size] = header


def to_notice(
    managers: Iterable[VersionManager], defaults: Mapping[str, int], why_not_ready: str
) -> Notice:
    """A version is decided once each runner that has it has proven or rejected it."""
    decisions: dict[str, set[bool | None]] = defaultdict(set)
    for manager in managers:
        for name in manager.names():
            for number in manager.versions(name):
                decisions[f"{name}.v{number}"].add(manager.has_decided(name, number))
    return Notice(
        [folder for folder, made in decisions.items() if True in made and False not in made],
        [folder for folder, made in decisions.items() if False in made],
        [f"{name}.v{number}" for name, number in defaults.items()],
        why_not_ready,
    )


class Peers:
    """The other workers."""

    def __init__(self, memory: NoticeMemory, worker: int) -> None:
        self.is_spare = False  # no request can come here yet: nobody waits until this one is ready
        self._own = memory.place(worker)
        self._others = [memory.place(n) for n in range(memory.workers) if n != worker]
        self._headers = [NOTHING for _ in self._others]
        self._notices: list[Notice | None] = [None for _ in self._others]

    @classmethod
    def none(cls) -> Peers:
        return cls(NoticeMemory(1, bytearray(NOTICE_BYTES)), 0)

    def __len__(self) -> int:
        return len(self._others)

    def publish(self, notice: Notice) -> None:
        write_notice(self._own, replace(notice, why_not_ready="") if self.is_spare else notice)

    def refresh(self) -> None:
        """Reads the notices that have changed."""
        for n, place in enumerate(self._others):
            header = bytes(place[: HEADER.size])
            if header == self._headers[n]:
                continue
            length, checksum = HEADER.unpack(header)
            text = bytes(place[HEADER.size : HEADER.size + min(length, NOTICE_BYTES)])
            if header == NOTHING:
                self._headers[n], self._notices[n] = header, None
            elif zlib.crc32(text) == checksum:
                self._headers[n], self._notices[n] = header, Notice(**json.loads(text))

    def decisions(self, folder: str) -> Iterable[bool | None]:
        """Of each: whether it has proven or rejected a version; None: it does not have it."""
        for notice in self._present():
            is_known = folder in notice.decided or folder in notice.pending
            yield folder in notice.decided if is_known else None

    def have_as_default(self, folder: str) -> bool:
        return any(folder in notice.defaults for notice in self._present())

    def why_not_ready(self) -> str:
        """Of the first that is not; empty: all are."""
        self.refresh()
        return next(
            (notice.why_not_ready for notice in self._present() if notice.why_not_ready), ""
        )

    def _present(self) -> Iterable[Notice]:
        return (notice for notice in self._notices if notice)
