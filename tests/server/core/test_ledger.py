"""What workers hold together: bounds and rates hold for all, and a killed one blocks nobody."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection

import pytest

from server.core.admission import Admission, Work
from server.core.keys import STRANGERS_BURST, Strangers, TokenBucket
from server.core.ledger import MAX_CLIENTS, Ledger, LedgerMemory
from server.errors import Overloaded, RateLimited

SPAWN = multiprocessing.get_context("spawn")
LENET = Work("lenet5")


@pytest.fixture
def memory() -> LedgerMemory:
    memory = LedgerMemory.create(SPAWN, 2)
    assert memory.add_clients(["alice", "bob"]) == 0
    return memory


@pytest.fixture
def pair(memory: LedgerMemory) -> list[Admission]:
    return [Admission(4, 1000, Ledger(memory, worker)) for worker in range(2)]


async def test_images_in_flight_are_bounded_for_all_workers(pair: list[Admission]) -> None:
    first, second = pair
    with first.request({LENET: 3}):
        with second.request({LENET: 1}), pytest.raises(Overloaded, match="4 of at most 4"):
            second.request({LENET: 1})
        with second.request({LENET: 1}):
            pass
    with second.request({LENET: 4}):
        pass


async def test_bytes_are_bounded_for_all_workers(pair: list[Admission]) -> None:
    first, second = (admission.reserve(1000) for admission in pair)
    first.add(600)
    with pytest.raises(Overloaded, match="600 of at most 1000 bytes"):
        second.add(500)
    first.release()
    second.add(1000)


async def test_what_a_client_has_in_one_worker_counts_in_the_other(pair: list[Admission]) -> None:
    first, second = pair
    with first.request({LENET: 2}, client="alice"):
        with pytest.raises(Overloaded, match="2 are yours"):
            second.request({LENET: 1}, client="alice")
        with second.request({LENET: 1}, client="bob"):
            pass


def test_a_rate_holds_for_all_workers_and_one_may_have_all_of_it(memory: LedgerMemory) -> None:
    def bucket(worker: int, client: str) -> TokenBucket:
        instant = Ledger(memory, worker).instant(client)
        return TokenBucket(per_s=0.001, burst=4, full_at=instant)

    in_turn = [bucket(n % 2, "alice").take() for n in range(6)]
    assert [wait_s == 0 for wait_s in in_turn] == [True] * 4 + [False] * 2
    on_one = [bucket(1, "bob").take() for _ in range(6)]
    assert [wait_s == 0 for wait_s in on_one] == [True] * 4 + [False] * 2
    memory.clear(1)  # a worker that ends gives no tokens back
    assert bucket(0, "bob").take() > 0


def test_more_clients_than_places_are_counted_in_each_worker_alone(memory: LedgerMemory) -> None:
    assert memory.add_clients(["alice", *map(str, range(MAX_CLIENTS))]) == 2
    one, other = (Ledger(memory, worker) for worker in range(2))
    last = str(MAX_CLIENTS - 1)
    one.hold_images_for(last, 3)
    assert other.others_images_for(last) == 0
    one.instant(last).write_s(time.monotonic() + 100)
    assert other.instant(last).read_s() == 0


def test_connections_are_counted_for_all_workers(memory: LedgerMemory) -> None:
    one, other = (Ledger(memory, worker) for worker in range(2))
    one.hold_connections(3)
    assert (one.others_connections(), other.others_connections()) == (0, 3)
    memory.clear(0)
    assert other.others_connections() == 0
    assert one.share_of(5) == 3


def test_a_host_without_a_key_has_its_rate_once(memory: LedgerMemory) -> None:
    workers = [Strangers(Ledger(memory, worker)) for worker in range(2)]
    for n in range(STRANGERS_BURST):
        workers[n % 2].charge("192.0.2.1")
    for strangers in workers:
        with pytest.raises(RateLimited):
            strangers.charge("192.0.2.1")
        strangers.charge("192.0.2.2")


def hold_until_killed(memory: LedgerMemory, ready: Connection) -> None:
    ledger = Ledger(memory, 0)
    while True:  # killed at any moment of it
        ledger.hold_images(4)
        ledger.hold_bytes(1000)
        ledger.hold_images_for("alice", 4)
        if not ready.closed:
            ready.send("holds")
            ready.close()


async def test_a_worker_that_is_killed_while_it_holds_blocks_nobody(
    memory: LedgerMemory, pair: list[Admission]
) -> None:
    theirs, ours = SPAWN.Pipe()
    process = SPAWN.Process(target=hold_until_killed, args=(memory, theirs))
    process.start()
    assert ours.recv() == "holds"
    assert process.pid
    with pytest.raises(Overloaded):
        pair[1].request({LENET: 1})
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    memory.clear(0)
    with pair[1].request({LENET: 2}, client="alice"):
        pair[1].reserve(1000).add(1000)
