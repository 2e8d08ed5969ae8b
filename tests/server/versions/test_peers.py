"""Workers of one gateway switch versions together, by notices in shared memory."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.pipeline import Pipeline
from server.runners.in_process import InProcessRunner
from server.runners.tracked import TrackedRunner
from server.versions.manager import LoadingPolicy
from server.versions.peers import NOTICE_BYTES, STARTING, Notice, NoticeMemory, Peers
from server.versions.pool import Pool
from tests.server.versions.polling import manager_of, poll, poll_past_grace

GRACE_S = 0.01
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def memory() -> NoticeMemory:
    return NoticeMemory.create(SPAWN, 2)


@pytest.fixture
async def pools(memory: NoticeMemory, repository: Path) -> AsyncIterator[list[Pool]]:
    """Those of two workers, which have loaded version 1."""
    pipeline = Pipeline(decode_threads=1, max_image_bytes=1 << 20, max_image_pixels=1 << 20)
    policy = LoadingPolicy(unload_grace_s=GRACE_S)
    pools = [Pool(pipeline, policy, Peers(memory, worker)) for worker in range(2)]
    for pool in pools:
        pool.add(TrackedRunner(InProcessRunner(repository), "in-process"))
        await poll(pool)
    yield pools
    for pool in pools:
        await manager_of(pool).close()
        await manager_of(pool).runner.close()
    pipeline.close()


def defaults(pools: list[Pool]) -> list[str]:
    return [pool.resolve("lenet5").version for pool in pools]


async def test_a_worker_is_ready_once_all_are(pools: list[Pool], memory: NoticeMemory) -> None:
    first, _ = pools
    assert first.is_ready()
    second = Peers(memory, 1)
    second.publish(STARTING)
    assert (first.is_ready(), first.why_not_ready()) == (False, "a worker is starting")
    second.is_spare = True
    second.publish(STARTING)
    assert first.is_ready(), "no request can come to a worker that replaces another one yet"
    second.is_spare = False
    second.publish(STARTING)
    assert not first.is_ready()
    memory.clear(1)
    assert first.is_ready(), "nobody waits for a process that has ended"


def publish_second(repository: Path) -> None:
    staging = repository / "lenet5.v2.staging"
    shutil.copytree(repository / "lenet5.v1", staging)
    staging.rename(repository / "lenet5.v2")


async def test_the_default_moves_once_all_workers_have_proven_the_new_version(
    pools: list[Pool], repository: Path
) -> None:
    first, second = pools
    publish_second(repository)
    await poll(first)
    assert defaults(pools) == ["1", "1"], "the second has not seen it"
    await manager_of(second).poll()
    first.tick()
    assert defaults(pools) == ["1", "1"], "nor proven it"
    await poll(second)
    first.tick()
    assert defaults(pools) == ["2", "2"]


async def test_the_old_version_stays_loaded_while_another_worker_answers_with_it(
    pools: list[Pool], repository: Path
) -> None:
    first, second = pools
    publish_second(repository)
    await poll(first)
    await poll(second)
    assert defaults(pools) == ["1", "2"], "the first has not looked again"
    await poll_past_grace(second, 2 * GRACE_S)
    assert second.resolve("lenet5", "1").version == "1"
    first.tick()
    await poll_past_grace(second, 2 * GRACE_S)
    assert manager_of(second).proven("lenet5") == {2}


async def test_nobody_waits_for_a_worker_that_has_ended(
    pools: list[Pool], repository: Path, memory: NoticeMemory
) -> None:
    first, _ = pools
    publish_second(repository)
    Peers(memory, 1).publish(Notice(["lenet5.v1"], ["lenet5.v2"], ["lenet5.v1"]))
    await poll(first)
    assert defaults([first]) == ["1"], "the other is proving it"
    memory.clear(1)
    first.tick()
    assert defaults([first]) == ["2"]


def test_a_notice_that_is_half_written_leaves_the_one_before(memory: NoticeMemory) -> None:
    one, other = Peers(memory, 0), Peers(memory, 1)
    one.publish(Notice(["lenet5.v1"], [], ["lenet5.v1"]))
    other.refresh()
    assert list(other.decisions("lenet5.v1")) == [True]
    memory.place(0)[20:24] = b"\0\0\0\0"
    memory.place(0)[:4] = b"\x10\0\0\0"
    other.refresh()
    assert other.have_as_default("lenet5.v1")
    one.publish(Notice([], ["lenet5.v2"], []))
    other.refresh()
    assert list(other.decisions("lenet5.v2")) == [False]
    assert list(other.decisions("lenet5.v1")) == [None]


def test_a_notice_that_is_too_long_is_none(memory: NoticeMemory) -> None:
    one, other = Peers(memory, 0), Peers(memory, 1)
    one.publish(Notice([], ["lenet5.v2"], []))
    one.publish(Notice(["x" * NOTICE_BYTES], ["lenet5.v2"], []))
    other.refresh()
    assert not list(other.decisions("lenet5.v2"))
