"""Two runners as one: when the default moves, and who is asked."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from convoy.v1 import classifier_pb2 as pb
from server.errors import ModelNotFound, RunnerUnavailable, VersionNotFound
from server.pipeline import Pipeline
from server.runners.in_process import InProcessRunner
from server.runners.tracked import TrackedRunner
from server.versions.manager import LoadingPolicy
from server.versions.pool import Pool

EditFacts = Callable[[Path, Callable[[pb.Model], None]], None]
FIRST, SECOND = "first", "second"


@pytest.fixture
def repositories(tmp_path: Path, shipped_lenet5: Path) -> dict[str, Path]:
    paths = {name: tmp_path / name for name in (FIRST, SECOND)}
    for path in paths.values():
        shutil.copytree(shipped_lenet5, path / "lenet5.v1")
    return paths


@pytest.fixture
async def pool(repositories: dict[str, Path]) -> AsyncIterator[Pool]:
    pipeline = Pipeline(decode_threads=1, max_image_bytes=1 << 20, max_image_pixels=1 << 20)

    pool = Pool(pipeline, LoadingPolicy(unload_grace_s=0.01))
    for name, path in repositories.items():
        pool.add(TrackedRunner(InProcessRunner(path), name))
    yield pool
    for manager in pool.managers.values():
        await manager.close()
        await manager.runner.close()
    pipeline.close()


async def poll(pool: Pool, *names: str) -> None:
    for name in names or pool.managers:
        manager = pool.managers[name]
        await manager.poll()
        for model in list(manager._models.values()):
            if model.update:
                await model.update


def publish(repository: Path, change: Callable[[Path], None] = lambda path: None) -> None:
    staging = repository / "lenet5.v2.staging"
    shutil.copytree(repository / "lenet5.v1", staging)
    change(staging)
    staging.rename(repository / "lenet5.v2")


def picked(pool: Pool, times: int = 10) -> Counter[tuple[str, str]]:
    picks = [pool.resolve("lenet5") for _ in range(times)]
    return Counter((pick.runner.name, pick.version) for pick in picks)


async def test_equals_take_turns_and_the_idlest_comes_first(pool: Pool) -> None:
    await poll(pool)
    assert picked(pool) == {(FIRST, "1"): 5, (SECOND, "1"): 5}
    pool.managers[FIRST].runner.in_flight = 1
    assert picked(pool) == {(SECOND, "1"): 10}
    pool.managers[FIRST].runner.in_flight = 0


async def test_the_default_moves_when_each_has_proven_the_new_version(
    pool: Pool, repositories: dict[str, Path]
) -> None:
    await poll(pool)
    for path in repositories.values():
        publish(path)
    await poll(pool, FIRST)
    await poll(pool, FIRST)  # over its grace period: the old one is needed still
    assert {version for _, version in picked(pool)} == {"1"}, "the second has not seen it"
    await pool.managers[SECOND].poll()
    assert {version for _, version in picked(pool)} == {"1"}, "nor proven it"
    await poll(pool, SECOND)
    assert picked(pool) == {(FIRST, "2"): 5, (SECOND, "2"): 5}


async def test_who_rejects_a_version_is_not_asked_for_it(
    pool: Pool, repositories: dict[str, Path], edit_facts: EditFacts
) -> None:
    def forget_golden_images(path: Path) -> None:
        edit_facts(path, lambda facts: facts.ClearField("golden_images"))

    await poll(pool)
    publish(repositories[FIRST])
    publish(repositories[SECOND], forget_golden_images)
    await poll(pool)
    assert picked(pool) == {(FIRST, "2"): 10}
    (described,) = [each for each in pool.list() if each.is_default]
    assert (described.version, described.state) == ("2", pb.STATE_READY)
    assert described.preparation.startswith("A digit is found in the picture")
    assert pool.resolve("lenet5", "1").runner.name == SECOND


async def test_what_a_runner_does_not_have_it_is_not_waited_for(
    pool: Pool, repositories: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    await poll(pool)
    publish(repositories[FIRST])
    await poll(pool)
    assert {version for _, version in picked(pool)} == {"1"}
    monkeypatch.setattr("server.versions.pool.PROPAGATION_S", 0.0)
    assert {version for _, version in picked(pool)} == {"1"}, "reading moves nothing"
    pool.tick()
    assert picked(pool) == {(FIRST, "2"): 10}


async def test_one_that_joins_late_does_not_move_the_default_back(
    pool: Pool, repositories: dict[str, Path]
) -> None:
    publish(repositories[FIRST])
    publish(repositories[SECOND])
    await poll(pool, FIRST)
    assert picked(pool) == {(FIRST, "2"): 10}
    second = pool.managers[SECOND]
    looking = asyncio.create_task(second.poll())
    while not second.names():  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert picked(pool) == {(FIRST, "2"): 10}
    await looking
    assert picked(pool) == {(FIRST, "2"): 5, (SECOND, "2"): 5}


async def test_a_withdrawn_version_hands_over_on_all(
    pool: Pool, repositories: dict[str, Path]
) -> None:
    for path in repositories.values():
        publish(path)
    await poll(pool)
    assert {version for _, version in picked(pool)} == {"2"}
    for path in repositories.values():
        (path / "lenet5.v2").rename(path / "lenet5.v2.withdrawn")
    await poll(pool)
    assert picked(pool) == {(FIRST, "1"): 5, (SECOND, "1"): 5}


async def test_a_runner_without_its_repository_serves_on_beside_the_others(
    pool: Pool, repositories: dict[str, Path]
) -> None:
    await poll(pool)
    shutil.rmtree(repositories[FIRST])
    for _ in range(2):
        await poll(pool)
    assert picked(pool) == {(FIRST, "1"): 5, (SECOND, "1"): 5}
    with pytest.raises(ModelNotFound):  # as the other one says
        pool.resolve("another")


async def test_what_a_lost_runner_was_asked_is_asked_elsewhere(pool: Pool) -> None:
    await poll(pool)
    lost = pool.resolve("lenet5")
    other = pool.failover(lost, "its cable was pulled")
    assert other and other.runner is not lost.runner
    assert picked(pool) == {(other.runner.name, "1"): 10}, "until it is proven again"
    assert pool.failover(other, "and the other one's") is None
    await poll(pool)
    assert len(picked(pool)) == 2


async def test_without_any_runner_it_says_why(pool: Pool) -> None:
    for manager in list(pool.managers.values()):
        pool.remove(manager.runner)
    pool.set_unavailable("tritons:8001 cannot be looked up")
    assert not pool.is_ready()
    with pytest.raises(RunnerUnavailable, match="cannot be looked up"):
        pool.resolve("lenet5")


async def test_a_number_or_name_that_none_has_is_not_found(pool: Pool) -> None:
    await poll(pool)
    with pytest.raises(VersionNotFound, match="no version '7'; loaded: 1"):
        pool.resolve("lenet5", "7")
    with pytest.raises(ModelNotFound, match="nearest: lenet5"):
        pool.resolve("lenet")
