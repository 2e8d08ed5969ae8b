"""What all workers of a gateway hold together, in memory that they share without a lock.

Each worker writes its own row alone and reads those of the others, number by number. So a worker
that is killed at any moment blocks nobody; the supervisor clears what its row says is in flight.
Two workers that decide within the same microseconds do not see each other: a bound may be exceeded
by what each of them accepts at that moment, and two charges of a key may count as one.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from typing import Any, Protocol

MAX_CLIENTS = 4096  # names that are known to all workers; the limits of others are each worker's
DIGEST_BYTES = 32
HOSTS = 16_384  # places, of which each host has one by its hash: a few hosts may share one
# The numbers of a row: three of the whole, two of each client, one of each place of hosts.
IMAGES, BYTES, CONNECTIONS = 0, 1, 2
FIRST_CLIENT = 3
NUMBERS_PER_CLIENT = 2
FIRST_HOST = FIRST_CLIENT + NUMBERS_PER_CLIENT * MAX_CLIENTS
ROW = FIRST_HOST + HOSTS


class Instant(Protocol):
    """A moment of the monotonic clock, which only moves on."""

    def read_s(self) -> float: ...

    def write_s(self, moment_s: float) -> None: ...


@dataclass
class OwnInstant:
    """Known to this process alone."""

    moment_s: float = 0.0

    def read_s(self) -> float:
        return self.moment_s

    def write_s(self, moment_s: float) -> None:
        self.moment_s = moment_s


@dataclass(frozen=True)
class LedgerMemory:
    """Shared by the supervisor and its workers; it is handed to a process when it starts."""

    workers: int
    numbers: Any  # one row of float64 per worker
    names: Any  # the sha256 of each client's name, which only the supervisor writes
    salt: bytes  # nobody can choose a host that shares another one's place

    @classmethod
    def create(cls, context: SpawnContext, workers: int) -> LedgerMemory:
        numbers = context.RawArray("d", workers * ROW)
        names = context.RawArray("B", MAX_CLIENTS * DIGEST_BYTES)
        return cls(workers, numbers, names, secrets.token_bytes(hashlib.blake2b.MAX_KEY_SIZE))

    def add_clients(self, names: Iterable[str]) -> int:
        """Gives each name that is new a place. Returns how many found none."""
        known = list(digests(self.names))
        new = [digest for digest in map(digest_of, names) if digest not in known]
        placed = new[: MAX_CLIENTS - len(known)]
        for n, digest in enumerate(placed, len(known)):
            self.names[n * DIGEST_BYTES : (n + 1) * DIGEST_BYTES] = list(digest)
        return len(new) - len(placed)

    def clear(self, worker: int) -> None:
        """A worker has ended: nothing of it is in flight. When buckets are full again stays."""
        row = memoryview(self.numbers).cast("B").cast("d")[worker * ROW : (worker + 1) * ROW]
        row[IMAGES] = row[BYTES] = row[CONNECTIONS] = 0.0
        for place in range(FIRST_CLIENT, FIRST_HOST, NUMBERS_PER_CLIENT):
            if row[place]:
                row[place] = 0.0


class Ledger:
    """The rows of all workers, as one of them sees them."""

    def __init__(self, memory: LedgerMemory, worker: int) -> None:
        numbers = memoryview(memory.numbers).cast("B").cast("d")
        rows = [numbers[n * ROW : (n + 1) * ROW] for n in range(memory.workers)]
        self._own = rows.pop(worker)
        self._others = rows
        self._names = memory.names
        self._salt = memory.salt
        self._places: dict[str, int | None] = {}

    def hold_images(self, n: int) -> None:
        """So many are in flight here from now on."""
        self._own[IMAGES] = n

    def hold_bytes(self, n: int) -> None:
        self._own[BYTES] = n

    def hold_connections(self, n: int) -> None:
        self._own[CONNECTIONS] = n

    def hold_images_for(self, client: str, n: int) -> None:
        if (place := self._place(client)) is not None:
            self._own[place] = n

    def others_images(self) -> int:
        return self._sum(IMAGES)

    def others_bytes(self) -> int:
        return self._sum(BYTES)

    def others_connections(self) -> int:
        return self._sum(CONNECTIONS)

    def share_of(self, bound: int) -> int:
        """One worker's, of what cannot be counted together; rounded up."""
        return -(-bound // (1 + len(self._others)))

    def others_images_for(self, client: str) -> int:
        place = self._place(client)
        return 0 if place is None else self._sum(place)

    def instant(self, client: str) -> Instant:
        """One of each client, which all workers move on."""
        place = self._place(client)
        if place is None:
            return OwnInstant()
        return SharedInstant(self._own, self._others, place + 1)

    def instant_of_host(self, host: str) -> Instant:
        """As `instant`, for clients without a name, of which there may be any number."""
        digest = hashlib.blake2b(host.encode(), key=self._salt).digest()
        place = FIRST_HOST + int.from_bytes(digest, "big") % HOSTS
        return SharedInstant(self._own, self._others, place)

    def _sum(self, place: int) -> int:
        return int(sum(row[place] for row in self._others))

    def _place(self, client: str) -> int | None:
        if client not in self._places:
            known = list(digests(self._names))
            digest = digest_of(client)
            place = known.index(digest) if digest in known else None
            self._places[client] = (
                None if place is None else FIRST_CLIENT + NUMBERS_PER_CLIENT * place
            )
        return self._places[client]


@dataclass(frozen=True)
class SharedInstant:
    """The latest that any worker has written."""

    own: memoryview[float]
    others: Sequence[memoryview[float]]
    place: int

    def read_s(self) -> float:
        return max(self.own[self.place], *(row[self.place] for row in self.others))

    def write_s(self, moment_s: float) -> None:
        self.own[self.place] = moment_s


def digest_of(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def digests(names: Any) -> Iterator[bytes]:
    """Those that have a place, in order."""
    table = bytes(names)
    for begin in range(0, len(table), DIGEST_BYTES):
        digest = table[begin : begin + DIGEST_BYTES]
        if not any(digest):
            return
        yield digest
