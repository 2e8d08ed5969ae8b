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
from server.runners.base import LoadedModel, Runner
from server.runners.in_process import InProcessRunner
from server.runners.tracked import CountedRunner
from server.versions.manager import Registry
from server.versions.pool import Fleet
from server.versions.proof import prove

EditFacts = Callable[[Path, Callable[[pb.Model], None]], None]
FIRST, SECOND = "first", "second"


@pytest.fixture
def repositories(tmp_path: Path, shipped_lenet5: Path) -> dict[str, Path]:
    paths = {name: tmp_path / name for name in (FIRST, SECOND)}
    for path in paths.values():
        shutil.copytree(shipped_lenet5, path / "lenet5.v1")
    return paths


@pytest.fixture
async def fleet(repositories: dict[str, Path]) -> AsyncIterator[Fleet]:
    pipeline = Pipeline(decode_threads=1, max_image_bytes=1 << 20, max_image_pixels=1 << 20)

    async def proven(runner: Runner, folder: str, model: LoadedModel) -> None:
        await prove(pipeline, runner, folder, model)

    def enlist(runner: CountedRunner) -> Registry:
        return Registry(
            runner, proven, fleet.default, wanted=(), keep_loaded=1, unload_grace_s=0.01
        )

    fleet = Fleet((), enlist)
    for name, path in repositories.items():
        fleet.add(CountedRunner(InProcessRunner(path), name))
    yield fleet
    for registry in fleet.registries.values():
        await registry.close()
        await registry.runner.close()
    pipeline.close()


async def look(fleet: Fleet, *names: str) -> None:
    for name in names or fleet.registries:
        registry = fleet.registries[name]
        await registry.look()
        for model in list(registry._models.values()):
            if model.update:
                await model.update


def publish(repository: Path, change: Callable[[Path], None] = lambda path: None) -> None:
    staging = repository / "lenet5.v2.staging"
    shutil.copytree(repository / "lenet5.v1", staging)
    change(staging)
    staging.rename(repository / "lenet5.v2")


def picked(fleet: Fleet, times: int = 10) -> Counter[tuple[str, str]]:
    found = [fleet.resolve("lenet5") for _ in range(times)]
    return Counter((each.runner.name, each.version) for each in found)


async def test_equals_take_turns_and_the_idlest_comes_first(fleet: Fleet) -> None:
    await look(fleet)
    assert picked(fleet) == {(FIRST, "1"): 5, (SECOND, "1"): 5}
    fleet.registries[FIRST].runner.in_flight = 1
    assert picked(fleet) == {(SECOND, "1"): 10}
    fleet.registries[FIRST].runner.in_flight = 0


async def test_the_default_moves_when_each_has_proven_the_new_version(
    fleet: Fleet, repositories: dict[str, Path]
) -> None:
    await look(fleet)
    for path in repositories.values():
        publish(path)
    await look(fleet, FIRST)
    await look(fleet, FIRST)  # over its grace period: the old one is needed still
    assert {version for _, version in picked(fleet)} == {"1"}, "the second has not seen it"
    await fleet.registries[SECOND].look()
    assert {version for _, version in picked(fleet)} == {"1"}, "nor proven it"
    await look(fleet, SECOND)
    assert picked(fleet) == {(FIRST, "2"): 5, (SECOND, "2"): 5}


async def test_who_rejects_a_version_is_not_asked_for_it(
    fleet: Fleet, repositories: dict[str, Path], edit_facts: EditFacts
) -> None:
    def forget_golden_images(path: Path) -> None:
        edit_facts(path, lambda facts: facts.ClearField("golden_images"))

    await look(fleet)
    publish(repositories[FIRST])
    publish(repositories[SECOND], forget_golden_images)
    await look(fleet)
    assert picked(fleet) == {(FIRST, "2"): 10}
    (described,) = [each for each in fleet.list() if each.is_default]
    assert (described.version, described.state) == ("2", pb.STATE_READY)
    assert fleet.resolve("lenet5", "1").runner.name == SECOND


async def test_what_a_runner_does_not_have_it_is_not_waited_for(
    fleet: Fleet, repositories: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    await look(fleet)
    publish(repositories[FIRST])
    await look(fleet)
    assert {version for _, version in picked(fleet)} == {"1"}
    monkeypatch.setattr("server.versions.pool.NEWS_TRAVELS_S", 0.0)
    assert picked(fleet) == {(FIRST, "2"): 10}


async def test_one_that_joins_late_does_not_move_the_default_back(
    fleet: Fleet, repositories: dict[str, Path]
) -> None:
    publish(repositories[FIRST])
    publish(repositories[SECOND])
    await look(fleet, FIRST)
    assert picked(fleet) == {(FIRST, "2"): 10}
    second = fleet.registries[SECOND]
    looking = asyncio.create_task(second.look())
    while not second.names():  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert picked(fleet) == {(FIRST, "2"): 10}
    await looking
    assert picked(fleet) == {(FIRST, "2"): 5, (SECOND, "2"): 5}


async def test_a_withdrawn_version_hands_over_on_all(
    fleet: Fleet, repositories: dict[str, Path]
) -> None:
    for path in repositories.values():
        publish(path)
    await look(fleet)
    assert {version for _, version in picked(fleet)} == {"2"}
    for path in repositories.values():
        (path / "lenet5.v2").rename(path / "lenet5.v2.withdrawn")
    await look(fleet)
    assert picked(fleet) == {(FIRST, "1"): 5, (SECOND, "1"): 5}


async def test_what_a_lost_runner_was_asked_is_asked_elsewhere(fleet: Fleet) -> None:
    await look(fleet)
    lost = fleet.resolve("lenet5")
    other = fleet.elsewhere(lost, "its cable was pulled")
    assert other and other.runner is not lost.runner
    assert picked(fleet) == {(other.runner.name, "1"): 10}, "until it is proven again"
    assert fleet.elsewhere(other, "and the other one's") is None
    await look(fleet)
    assert len(picked(fleet)) == 2


async def test_without_any_runner_it_says_why(fleet: Fleet) -> None:
    for registry in list(fleet.registries.values()):
        fleet.remove(registry.runner)
    fleet.note_nobody("tritons:8001 cannot be looked up")
    assert not fleet.is_ready()
    with pytest.raises(RunnerUnavailable, match="cannot be looked up"):
        fleet.resolve("lenet5")


async def test_a_number_or_name_that_none_has_is_not_found(fleet: Fleet) -> None:
    await look(fleet)
    with pytest.raises(VersionNotFound, match="no version '7'; loaded: 1"):
        fleet.resolve("lenet5", "7")
    with pytest.raises(ModelNotFound, match="nearest: lenet5"):
        fleet.resolve("lenet")
