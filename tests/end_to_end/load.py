"""Continuous requests while something breaks, and the outcome of each."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from convoy import Client, errors
from tests.loopback import wait_for

CLIENTS_PER_WIRE = 2
PAUSE_S = 0.01  # the gateway needs the cores too
# A gateway serves again after this many right answers in a row on each wire.
ENOUGH_ANSWERS = 5


@dataclass(frozen=True)
class Outcome:
    """The outcome of one request; times are from time.monotonic()."""

    wire: str
    began_s: float
    ended_s: float
    what: str  # the best label, or the reason of the error

    @property
    def took_s(self) -> float:
        return self.ended_s - self.began_s


@dataclass
class Load:
    """The outcomes of the requests so far, in the order in which they ended."""

    answer: str  # the best label of a right answer
    outcomes: list[Outcome] = field(default_factory=list)

    def counts(self, since_s: float = 0.0) -> Counter[str]:
        return Counter(
            outcome.what for outcome in list(self.outcomes) if outcome.began_s >= since_s
        )

    def seen(self) -> set[str]:
        """Returns what clients saw besides the right answer."""
        return set(self.counts()) - {self.answer}

    def longest_s(self) -> float:
        return max(outcome.took_s for outcome in list(self.outcomes))

    def is_served(self, since_s: float) -> bool:
        """True if each wire has answered enough requests in a row that began after since_s."""
        for wire in ("grpc", "http"):
            late = [outcome for outcome in list(self.outcomes) if outcome.wire == wire]
            late = [each for each in late if each.began_s >= since_s][-ENOUGH_ANSWERS:]
            if len(late) < ENOUGH_ANSWERS or any(each.what != self.answer for each in late):
                return False
        return True

    def back_after_s(self, fault_s: float) -> float:
        """Returns the seconds from a fault to the first answer after the last failed request."""
        outcomes = list(self.outcomes)
        failed_s = [outcome.ended_s for outcome in outcomes if outcome.what != self.answer]
        last_s = max([fault_s, *failed_s])
        back_s = min(outcome.ended_s for outcome in outcomes if outcome.ended_s > last_s)
        return back_s - fault_s


@contextmanager
def load(
    gateway: Any,
    image: bytes,
    *,
    model: str = "lenet5",
    answer: str = "7",
    timeout_s: float = 20.0,
    clients_per_wire: int = CLIENTS_PER_WIRE,
) -> Iterator[Load]:
    """Runs clients that send requests over both wires until the block ends."""
    running = Load(answer)
    is_over = threading.Event()

    def ask_on(wire: str) -> None:
        with Client(getattr(gateway, wire), timeout_s=timeout_s) as client:
            while not is_over.is_set():
                began_s = time.monotonic()
                what = ask(client, image, model)
                running.outcomes.append(Outcome(wire, began_s, time.monotonic(), what))
                is_over.wait(PAUSE_S)

    threads = [
        threading.Thread(target=ask_on, args=(wire,))
        for wire in ("grpc", "http")
        for _ in range(clients_per_wire)
    ]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: running.is_served(0.0))
        yield running
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def ask(client: Client, image: bytes, model: str = "lenet5") -> str:
    """Returns the best label, or the reason of the error that the gateway or the client raised."""
    try:
        return client.classify(image, model=model).best.label
    except errors.DeadlineExceeded:
        return "DEADLINE_EXCEEDED"  # over gRPC the client's own clock may expire first
    except errors.Unavailable as error:
        return error.reason or "Unavailable"
    except errors.ConvoyError as error:
        return error.reason or repr(error)
    except Exception as error:
        return repr(error)


# ---------------------------------------------------------------- what a process holds


# Of the pools that prepare images and read files.
POOLED_THREADS = 2 * (os.cpu_count() or 1) + 6


@dataclass(frozen=True)
class Holdings:
    """Counts of the resources that a gateway could leak."""

    files: int
    threads: int
    shared_memory: int  # regions of the gateway and of its Triton


def read_holdings(pid: int) -> Holdings:
    return Holdings(
        files=len(list(Path("/proc", str(pid), "fd").iterdir())),
        threads=len(list(Path("/proc", str(pid), "task").iterdir())),
        shared_memory=len(list(Path("/dev/shm").glob(f"convoy-{pid}-*"))),
    )


@contextmanager
def nothing_leaks(gateway: Any, left_regions: int = 0) -> Iterator[None]:
    """Checks that an idle gateway holds the same resources before and after the block.

    Its thread pools start a thread when none is idle, so that they may fill late. `left_regions` is
    the number of shared memory regions that are known to stay.
    """
    pid = gateway.process.pid
    before = settled(pid)
    expected = replace(before, shared_memory=before.shared_memory + left_regions)
    yield
    with contextlib.suppress(AssertionError):  # the comparison below says more
        wait_for(lambda: is_no_more(read_holdings(pid), expected), 20)
    left = read_holdings(pid)
    assert is_no_more(left, expected), f"{left} after, {expected} before"


def is_no_more(now: Holdings, before: Holdings) -> bool:
    return replace(now, threads=0) == replace(before, threads=0) and (
        now.threads <= before.threads + POOLED_THREADS
    )


def settled(pid: int) -> Holdings:
    """Returns the holdings once recently closed connections are gone."""
    before, now = None, read_holdings(pid)
    while now != before:
        time.sleep(0.5)
        before, now = now, read_holdings(pid)
    return now


def resident_bytes(pid: int) -> int:
    status = Path("/proc", str(pid), "status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) << 10
