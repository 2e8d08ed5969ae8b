"""Requests that go on while something breaks, and what became of each of them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from convoy import Client, errors
from tests.conftest import holds

CLIENTS_PER_WIRE = 2
PAUSE_S = 0.01  # the gateway needs the cores too
# So many answers in a row on each wire, and it serves again.
ENOUGH_ANSWERS = 5


@dataclass(frozen=True)
class Outcome:
    """Of one request; times are those of time.monotonic()."""

    wire: str
    began_s: float
    ended_s: float
    what: str  # the best label, or the reason of the error

    @property
    def took_s(self) -> float:
        return self.ended_s - self.began_s


@dataclass
class Load:
    """What became of the requests so far, in the order in which they ended."""

    answer: str  # the best label of a right answer
    outcomes: list[Outcome] = field(default_factory=list)

    def counts(self, since_s: float = 0.0) -> Counter[str]:
        return Counter(each.what for each in list(self.outcomes) if each.began_s >= since_s)

    def seen(self) -> set[str]:
        """What clients saw beside the right answer."""
        return set(self.counts()) - {self.answer}

    def longest_s(self) -> float:
        return max(each.took_s for each in list(self.outcomes))

    def is_served(self, since_s: float) -> bool:
        """Each wire has answered enough in a row, of what was asked after since_s."""
        for wire in ("grpc", "http"):
            late = [each for each in list(self.outcomes) if each.wire == wire]
            late = [each for each in late if each.began_s >= since_s][-ENOUGH_ANSWERS:]
            if len(late) < ENOUGH_ANSWERS or any(each.what != self.answer for each in late):
                return False
        return True

    def back_after_s(self, fault_s: float) -> float:
        """From a fault to the answer that follows the last request that failed."""
        outcomes = list(self.outcomes)
        failed_s = [each.ended_s for each in outcomes if each.what != self.answer]
        last_s = max([fault_s, *failed_s])
        back_s = min(each.ended_s for each in outcomes if each.ended_s > last_s)
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
    """Clients that ask again and again over both wires, as long as the block lasts."""
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
    """The best label; or the gateway's reason, or what a client makes of one that is not there."""
    try:
        return client.classify(image, model=model).best.label
    except errors.DeadlineExceeded:
        return "DEADLINE_EXCEEDED"  # over gRPC the client's own clock may be the first to say so
    except errors.Unavailable as error:
        return error.reason or "Unavailable"
    except errors.ConvoyError as error:
        return error.reason or repr(error)
    except Exception as error:
        return repr(error)


def wait_for(is_so: Callable[[], bool], timeout_s: float = 120.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not holds(is_so):
        assert time.monotonic() < deadline_s, f"not so after {timeout_s} s"
        time.sleep(0.02)


# ---------------------------------------------------------------- what a process holds


@dataclass(frozen=True)
class Holdings:
    """What a gateway could leak."""

    files: int
    threads: int
    shared_memory: int  # its regions, and those of its Triton


def holdings_of(pid: int) -> Holdings:
    return Holdings(
        files=len(list(Path("/proc", str(pid), "fd").iterdir())),
        threads=len(list(Path("/proc", str(pid), "task").iterdir())),
        shared_memory=len(list(Path("/dev/shm").glob(f"convoy-{pid}-*"))),
    )


@contextmanager
def nothing_leaks(gateway: Any, left_regions: int = 0) -> Iterator[None]:
    """What the gateway holds while nobody asks is the same before and after.

    To be used on a gateway that has seen load: pools of threads are filled by the first.
    `left_regions` of shared memory are known to stay.
    """
    pid = gateway.process.pid
    before = settled(pid)
    expected = replace(before, shared_memory=before.shared_memory + left_regions)
    yield
    with contextlib.suppress(AssertionError):  # the comparison below says more
        wait_for(lambda: holdings_of(pid) == expected, 20)
    assert holdings_of(pid) == expected


def settled(pid: int) -> Holdings:
    """Once connections that were closed a moment ago are gone."""
    before, now = None, holdings_of(pid)
    while now != before:
        time.sleep(0.5)
        before, now = now, holdings_of(pid)
    return now


def resident_bytes(pid: int) -> int:
    status = Path("/proc", str(pid), "status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) << 10
