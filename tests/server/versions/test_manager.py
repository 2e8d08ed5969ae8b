"""Which version answers, as the repository changes; models run in process, and really."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from convoy.v1 import classifier_pb2 as pb
from export.repository.withdrawal import remove
from server.errors import ModelNotFound, ModelNotReady, RunnerUnavailable, VersionNotFound
from server.pipeline import Pipeline
from server.runners.in_process import InProcessRunner
from server.runners.tracked import TrackedRunner
from server.versions.manager import LoadingPolicy
from server.versions.pool import Pool
from tests.server.versions.polling import manager_of, poll, poll_past_grace

EditFacts = Callable[[Path, Callable[[pb.Model], None]], None]
BuildPool = Callable[..., Pool]

GRACE_S = 0.05


@pytest.fixture
async def runner(repository: Path) -> AsyncIterator[InProcessRunner]:
    runner = InProcessRunner(repository)
    yield runner
    await runner.close()


@pytest.fixture
async def build(runner: InProcessRunner) -> AsyncIterator[BuildPool]:
    """Pools of one runner, as the gateway makes them."""
    pipeline = Pipeline(decode_threads=1, max_image_bytes=1 << 20, max_image_pixels=1 << 20)
    pools: list[Pool] = []

    def pool(*wanted: str, grace_s: float = GRACE_S, keep_loaded: int = 1) -> Pool:
        built = Pool(pipeline, LoadingPolicy(frozenset(wanted), keep_loaded, grace_s))
        built.add(TrackedRunner(runner, "in-process"))
        pools.append(built)
        return built

    yield pool
    for built in pools:
        await manager_of(built).close()
    pipeline.close()


def publish(repository: Path, version: int, change: Callable[[Path], object] | None = None) -> Path:
    """Another version of LeNet-5, there in one rename."""
    staging = repository / f"lenet5.v{version}.staging"
    shutil.copytree(repository / "lenet5.v1", staging)
    if change:
        change(staging)
    return staging.rename(repository / f"lenet5.v{version}")


def states(pool: Pool) -> dict[str, str]:
    return {
        model.version: pb.State.Name(model.state).removeprefix("STATE_") for model in pool.list()
    }


async def test_of_several_versions_only_the_highest_is_loaded(
    build: BuildPool, repository: Path, runner: InProcessRunner
) -> None:
    publish(repository, 2)
    await poll(build())
    assert await runner.index() == {"lenet5.v1": False, "lenet5.v2": True}


async def test_a_superseded_version_stays_for_its_grace_period(
    build: BuildPool, repository: Path
) -> None:
    pool = build(grace_s=60.0)
    await poll(pool)
    publish(repository, 2)
    for _ in range(3):
        await poll(pool)
    assert states(pool) == {"2": "READY", "1": "READY"}


async def test_a_new_version_becomes_the_default_and_the_old_one_is_let_go(
    build: BuildPool, repository: Path, runner: InProcessRunner
) -> None:
    pool = build()
    await poll(pool)
    assert pool.resolve("lenet5").version == "1"

    publish(repository, 2)
    await poll(pool)
    assert pool.resolve("lenet5").version == "2"
    assert pool.resolve("lenet5", "1").version == "1", "the old one has its grace period"

    await poll_past_grace(pool, GRACE_S)
    assert states(pool) == {"2": "READY", "1": "AVAILABLE"}
    assert await runner.index() == {"lenet5.v1": False, "lenet5.v2": True}
    with pytest.raises(VersionNotFound, match="loaded: 2"):
        pool.resolve("lenet5", "1")


def swap_labels(facts: pb.Model, first: int, second: int) -> None:
    names = facts.labels[first].name, facts.labels[second].name
    facts.labels[second].name, facts.labels[first].name = names


def swap_the_best_labels(facts: pb.Model) -> None:
    best, next_best = facts.golden_images[0].expected[:2]
    swap_labels(facts, best.index, next_best.index)


def swap_lower_labels(facts: pb.Model) -> None:
    """Those of two classes that are the best of no golden image."""
    best = {golden.expected[0].index for golden in facts.golden_images}
    seen = [expected.index for expected in facts.golden_images[0].expected]
    first, second = [index for index in seen if index not in best][:2]
    swap_labels(facts, first, second)


def expect_another_score(facts: pb.Model) -> None:
    expected = facts.golden_images[0].expected[0]
    expected.score -= 1.5 * facts.golden_images[0].tolerance


def forget_golden_images(facts: pb.Model) -> None:
    facts.ClearField("golden_images")


def drop_a_label(facts: pb.Model) -> None:
    del facts.labels[9]


def shift_the_digit(facts: pb.Model) -> None:
    facts.preprocessing.digit.box = 12


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (swap_the_best_labels, "golden image"),
        (swap_lower_labels, "the build called it"),
        (expect_another_score, "at most 0.02 is allowed"),
        (forget_golden_images, "no golden images"),
        (drop_a_label, "10 classes and has 9 labels"),
        (shift_the_digit, "golden image"),
    ],
)
async def test_a_version_that_does_not_prove_itself_never_answers(
    build: BuildPool,
    repository: Path,
    edit_facts: EditFacts,
    change: Callable[[pb.Model], None],
    reason: str,
) -> None:
    pool = build()
    publish(repository, 2, lambda path: edit_facts(path, change))
    await poll(pool)
    assert states(pool) == {"2": "FAILED", "1": "READY"}
    assert reason in pool.describe("lenet5", "2").state_reason
    assert pool.resolve("lenet5").version == "1"
    with pytest.raises(VersionNotFound, match=r"not loaded: lenet5\.v2"):
        pool.resolve("lenet5", "2")


async def test_a_damaged_model_stays_out_and_is_tried_again_when_its_pause_is_over(
    build: BuildPool, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.versions.retries.INITIAL_BACKOFF_S", 0.0)
    pool = build()
    broken = publish(repository, 2, lambda path: (path / "1" / "model.onnx").write_bytes(b"no"))
    await poll(pool)
    assert states(pool) == {"2": "FAILED", "1": "READY"}

    shutil.copy(repository / "lenet5.v1" / "1" / "model.onnx", broken / "1")
    await poll(pool)
    assert pool.resolve("lenet5").version == "2"


@pytest.fixture
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for versions whose files have changed."""
    monkeypatch.setattr("server.versions.retries.INITIAL_BACKOFF_S", 3600.0)
    monkeypatch.setattr("server.versions.retries.MAX_BACKOFF_S", 3600.0)


@pytest.mark.usefixtures("no_retries")
async def test_a_version_that_arrives_slowly_is_tried_once_it_is_whole(
    build: BuildPool, repository: Path
) -> None:
    pool = build()
    whole = (repository / "lenet5.v1" / "1" / "model.onnx").read_bytes()
    arriving = publish(repository, 2, lambda path: (path / "1" / "model.onnx").unlink())
    for share in (0.5, 0.9):
        await poll(pool)
        assert states(pool) == {"2": "FAILED", "1": "READY"}
        (arriving / "1" / "model.onnx").write_bytes(whole[: int(share * len(whole))])
    (arriving / "1" / "model.onnx").write_bytes(whole)
    await poll(pool)
    assert pool.resolve("lenet5").version == "2"


@pytest.mark.usefixtures("no_retries")
async def test_a_version_that_is_still_written_is_not_tried(
    build: BuildPool, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = build()
    whole = (repository / "lenet5.v1" / "1" / "model.onnx").read_bytes()
    arriving = publish(repository, 2, lambda path: (path / "1" / "model.onnx").unlink())
    await poll(pool)
    (arriving / "1" / "model.onnx").write_bytes(whole[:1000])
    sleep = asyncio.sleep

    async def write_meanwhile(seconds: float) -> None:
        (arriving / "1" / "model.onnx").write_bytes(whole)
        await sleep(seconds)

    with monkeypatch.context() as patched:
        patched.setattr("server.versions.retries.asyncio.sleep", write_meanwhile)
        await poll(pool)
    assert states(pool) == {"2": "FAILED", "1": "READY"}
    await poll(pool)
    assert pool.resolve("lenet5").version == "2"


async def test_a_withdrawn_version_hands_over_to_the_one_below(
    build: BuildPool, repository: Path
) -> None:
    pool = build()
    path = publish(repository, 2)
    await poll_past_grace(pool, GRACE_S)
    assert states(pool) == {"2": "READY", "1": "AVAILABLE"}

    path.rename(repository / "lenet5.v2.withdrawn")
    await poll(pool)
    assert pool.resolve("lenet5").version == "1"
    await poll_past_grace(pool, GRACE_S)
    assert states(pool) == {"1": "READY"}


async def test_a_model_that_was_removed_is_let_go(build: BuildPool, repository: Path) -> None:
    pool = build()
    await poll(pool)
    remove(repository, "lenet5")
    await poll_past_grace(pool, GRACE_S)
    with pytest.raises(ModelNotFound, match="there is none"):
        pool.resolve("lenet5")


def go_missing(repository: Path) -> None:
    repository.rename(repository.with_name("away"))


def leave_an_empty_folder(repository: Path) -> None:
    """As a mount point that is unmounted."""
    go_missing(repository)
    repository.mkdir()


def become_unreadable(repository: Path) -> None:
    go_missing(repository)
    repository.symlink_to(repository)  # root may read what it likes, but not that


def bring_back(repository: Path) -> None:
    if repository.is_symlink():
        repository.unlink()
    elif repository.exists():
        repository.rmdir()
    repository.with_name("away").rename(repository)


@pytest.mark.parametrize(
    ("happen", "reason"),
    [
        (go_missing, "No such file or directory"),
        (leave_an_empty_folder, "is empty"),
        (become_unreadable, "symbolic links"),
    ],
)
async def test_a_repository_that_is_lost_withdraws_nothing(
    build: BuildPool,
    repository: Path,
    caplog: pytest.LogCaptureFixture,
    happen: Callable[[Path], None],
    reason: str,
) -> None:
    pool = build()
    await poll(pool)
    happen(repository)
    for _ in range(2):
        await poll_past_grace(pool, GRACE_S)
    assert (pool.resolve("lenet5").version, pool.is_ready()) == ("1", True)
    with pytest.raises(RunnerUnavailable, match=reason):
        pool.resolve("another")
    (line,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "without its repository" in line.message

    bring_back(repository)
    publish(repository, 2)
    await poll(pool)
    assert (pool.fault, pool.resolve("lenet5").version) == ("", "2")


async def test_a_repository_that_cannot_be_read_at_the_start_says_so(
    build: BuildPool, repository: Path
) -> None:
    become_unreadable(repository)
    pool = build()
    await poll(pool)
    assert not pool.is_ready()
    assert "the model repository cannot be read" in pool.why_not_ready()
    bring_back(repository)
    await poll(pool)
    assert pool.is_ready()


async def test_an_unknown_name_is_answered_with_the_nearest(build: BuildPool) -> None:
    pool = build()
    await poll(pool)
    with pytest.raises(ModelNotFound, match="nearest: lenet5"):
        pool.resolve("lenet")
    with pytest.raises(VersionNotFound, match="loaded: 1"):
        pool.resolve("lenet5", "4")


async def test_ready_when_all_found_at_the_start_were_tried_and_one_is_proven(
    build: BuildPool, repository: Path
) -> None:
    pool = build()
    assert not pool.is_ready()
    (repository / "alexnet.v1").mkdir()  # an empty folder
    await poll(pool)
    assert pool.is_ready()
    with pytest.raises(ModelNotReady, match=r"config\.pbtxt cannot be read"):
        pool.resolve("alexnet")


async def test_models_that_appear_later_never_turn_it_red(
    build: BuildPool, repository: Path
) -> None:
    pool = build()
    await poll(pool)
    (repository / "alexnet.v1").mkdir()
    await poll(pool)
    assert pool.is_ready()


async def test_with_models_named_each_of_them_must_be_proven(
    build: BuildPool, repository: Path
) -> None:
    pool = build("lenet5", "alexnet")
    await poll(pool)
    assert not pool.is_ready()
    assert "alexnet: not in the repository" in pool.why_not_ready()
    assert build("lenet5").why_not_ready() == "the runner is starting"


async def test_only_the_models_named_are_served(build: BuildPool, repository: Path) -> None:
    shutil.copytree(repository / "lenet5.v1", repository / "other.v1")
    pool = build("lenet5")
    await poll(pool)
    assert [model.name for model in pool.list()] == ["lenet5"]


async def test_an_empty_repository_is_not_ready_and_says_so(
    build: BuildPool, repository: Path
) -> None:
    shutil.rmtree(repository / "lenet5.v1")
    pool = build()
    await poll(pool)
    assert (pool.is_ready(), pool.why_not_ready()) == (False, "the repository is empty")


# ---------------------------------------------------------------- several that stay loaded


async def test_as_many_stay_loaded_as_told_and_answer_by_their_number(
    build: BuildPool, repository: Path, runner: InProcessRunner
) -> None:
    for number in (2, 3):
        publish(repository, number)
    pool = build(keep_loaded=2)
    await poll_past_grace(pool, GRACE_S)
    await poll_past_grace(pool, GRACE_S)
    assert states(pool) == {"3": "READY", "2": "READY", "1": "AVAILABLE"}
    assert pool.resolve("lenet5").version == "3"
    assert pool.resolve("lenet5", "2").version == "2"
    with pytest.raises(VersionNotFound, match=r"version 1 .*not loaded; loaded: 3, 2"):
        pool.resolve("lenet5", "1")
    assert await runner.index() == {"lenet5.v1": False, "lenet5.v2": True, "lenet5.v3": True}


async def test_the_lowest_of_those_that_stay_makes_room_for_a_new_one(
    build: BuildPool, repository: Path
) -> None:
    publish(repository, 2)
    pool = build(keep_loaded=2)
    await poll(pool)
    publish(repository, 3)
    await poll(pool)
    assert states(pool) == {"3": "READY", "2": "READY", "1": "READY"}
    await poll_past_grace(pool, GRACE_S)
    assert states(pool) == {"3": "READY", "2": "READY", "1": "AVAILABLE"}


async def test_one_that_fails_does_not_count_among_those_that_stay(
    build: BuildPool, repository: Path, edit_facts: EditFacts
) -> None:
    publish(repository, 2, lambda path: edit_facts(path, forget_golden_images))
    publish(repository, 3)
    pool = build(keep_loaded=2)
    await poll_past_grace(pool, GRACE_S)
    assert states(pool) == {"3": "READY", "2": "FAILED", "1": "READY"}


async def test_after_a_roll_back_one_that_stayed_answers_before_the_next_look(
    build: BuildPool, repository: Path
) -> None:
    pool = build(keep_loaded=2)
    path = publish(repository, 2)
    await poll_past_grace(pool, GRACE_S)
    path.rename(repository / "lenet5.v2.withdrawn")
    await manager_of(pool).poll()  # what loads goes on beside it
    assert pool.resolve("lenet5").version == "1"
    await poll_past_grace(pool, GRACE_S)
    assert states(pool) == {"1": "READY"}


# ---------------------------------------------------------------- what leaves under a request


async def test_a_withdrawn_version_answers_while_none_below_proves_itself(
    build: BuildPool, repository: Path, edit_facts: EditFacts
) -> None:
    pool = build()
    path = publish(repository, 2)
    await poll_past_grace(pool, GRACE_S)
    edit_facts(repository / "lenet5.v1", forget_golden_images)
    path.rename(repository / "lenet5.v2.withdrawn")
    for _ in range(2):
        await poll_past_grace(pool, GRACE_S)
    assert states(pool) == {"2": "READY", "1": "FAILED"}
    assert pool.resolve("lenet5").version == "2"


async def test_a_version_that_somebody_else_unloaded_is_loaded_for_the_request_that_finds_out(
    build: BuildPool, runner: InProcessRunner
) -> None:
    pool = build()
    await poll(pool)
    lost = pool.resolve("lenet5")
    await runner.unload("lenet5.v1")
    pool.note_loss(lost)
    again, beside_it = await asyncio.gather(pool.find("lenet5"), pool.find("lenet5", "1"))
    assert (again.version, beside_it.version) == ("1", "1")
    assert await runner.index() == {"lenet5.v1": True}
    assert states(pool) == {"1": "READY"}


async def test_a_request_moves_on_to_the_version_that_is_being_proven(
    build: BuildPool, runner: InProcessRunner, repository: Path
) -> None:
    pool = build()
    await poll(pool)
    lost = pool.resolve("lenet5")
    publish(repository, 2)
    await manager_of(pool).poll()
    await runner.unload("lenet5.v1")  # by a gateway that was quicker
    pool.note_loss(lost)
    assert (await pool.find("lenet5")).version == "2"


async def test_a_number_that_was_superseded_is_not_loaded_again(
    build: BuildPool, repository: Path, runner: InProcessRunner
) -> None:
    pool = build()
    await poll(pool)
    lost = pool.resolve("lenet5", "1")
    publish(repository, 2)
    await poll_past_grace(pool, GRACE_S)
    pool.note_loss(lost)
    with pytest.raises(VersionNotFound, match="loaded: 2"):
        await pool.find("lenet5", "1")
    assert await runner.index() == {"lenet5.v1": False, "lenet5.v2": True}


async def test_a_model_that_is_gone_is_not_found_again(build: BuildPool, repository: Path) -> None:
    pool = build()
    await poll(pool)
    lost = pool.resolve("lenet5")
    remove(repository, "lenet5")
    await poll_past_grace(pool, GRACE_S)
    pool.note_loss(lost)
    with pytest.raises(ModelNotFound):
        await pool.find("lenet5")


async def test_a_number_that_is_lost_once_superseded_is_not_loaded_again(
    build: BuildPool, repository: Path, runner: InProcessRunner
) -> None:
    pool = build(grace_s=60.0)
    await poll(pool)
    lost = pool.resolve("lenet5", "1")
    publish(repository, 2)
    await poll(pool)
    await runner.unload("lenet5.v1")
    pool.note_loss(lost)
    with pytest.raises(VersionNotFound, match="loaded: 2"):
        await pool.find("lenet5", "1")
    assert pool.resolve("lenet5").version == "2"


async def test_what_the_runner_was_seen_to_have_lost_is_waited_for(
    build: BuildPool, runner: InProcessRunner
) -> None:
    pool = build()
    await poll(pool)
    await runner.unload("lenet5.v1")
    await manager_of(pool).poll()
    with pytest.raises(ModelNotReady):
        pool.resolve("lenet5")
    assert (await pool.find("lenet5")).version == "1"


async def test_what_was_never_proven_is_not_waited_for(build: BuildPool) -> None:
    pool = build()
    first_look = asyncio.create_task(manager_of(pool).poll())
    while not pool.has_model("lenet5"):  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    with pytest.raises(ModelNotReady):
        await pool.find("lenet5")
    assert not first_look.done()
    await first_look
    assert (await pool.find("lenet5")).version == "1"
