"""One suite over every runner: same pixels in, same probabilities out, same errors."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
import pytest_asyncio

from server.errors import DeadlineExceeded, InferenceFailed, ModelNotReady
from server.runners.base import LoadFailed, RepositoryEmpty, RepositoryLost, Runner
from server.runners.in_process import InProcessRunner
from server.runners.triton_local import TritonLocalRunner
from tests.harmful_graphs import loop_while_bright

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAME = "lenet5.v1"


@pytest.fixture(scope="module")
def shared_repository(tmp_path_factory: pytest.TempPathFactory, shipped_lenet5: Path) -> Path:
    """LeNet-5; what the tests add to it has another name, and goes again."""
    path = tmp_path_factory.mktemp("conformance") / "model_repository"
    shutil.copytree(shipped_lenet5, path / NAME)
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["in-process", "triton-local"])
async def runner(request: pytest.FixtureRequest, shared_repository: Path) -> AsyncIterator[Runner]:
    if request.param == "in-process":
        runner: Runner = InProcessRunner(shared_repository)
    else:
        request.getfixturevalue("tritonserver")
        runner = TritonLocalRunner(shared_repository)
        await runner.start()
    await runner.load(NAME)
    yield runner
    await runner.close()


@pytest.fixture(scope="module")
def digits() -> npt.NDArray[np.uint8]:
    """Sixteen inputs, all different: what they show does not matter here."""
    return np.random.default_rng(7).integers(0, 256, (16, 32, 32, 1), np.uint8)


def alone(repository: Path, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """What ONNX Runtime answers without any of our code."""
    session = ort.InferenceSession(repository / NAME / "1" / "model.onnx")
    probabilities: npt.NDArray[np.float32] = session.run(["probabilities"], {"image": images})[0]
    return probabilities


async def test_a_fingerprint_changes_with_the_files(
    runner: Runner, shared_repository: Path
) -> None:
    arriving = shared_repository / "lenet5.v7"
    try:
        found = [await runner.fingerprint(arriving.name)]
        shutil.copytree(shared_repository / NAME, arriving)
        found.append(await runner.fingerprint(arriving.name))
        assert await runner.fingerprint(arriving.name) == found[-1]
        with (arriving / "1" / "model.onnx").open("ab") as file:
            file.write(b"x")
        found.append(await runner.fingerprint(arriving.name))
        assert len(set(found)) == 3 and None not in found
    finally:
        shutil.rmtree(arriving)


async def test_index_lists_versions_and_nothing_else(
    runner: Runner, shared_repository: Path
) -> None:
    others = [shared_repository / f"lenet5.v2.{state}" for state in ("staging", "withdrawn")]
    for path in (*others, shared_repository / "notes"):
        path.mkdir()
    try:
        assert await runner.index() == {NAME: True}
    finally:
        for path in (*others, shared_repository / "notes"):
            path.rmdir()


async def test_a_repository_that_is_lost_is_told_from_one_without_versions(
    runner: Runner, shared_repository: Path, digits: npt.NDArray[np.uint8]
) -> None:
    withdrawn = shared_repository / f"{NAME}.withdrawn"
    (shared_repository / NAME).rename(withdrawn)
    assert await runner.index() == {}
    withdrawn.rename(shared_repository / NAME)

    away = shared_repository.with_name("away")
    shutil.move(shared_repository, away)
    try:
        with pytest.raises(RepositoryLost, match="read"):
            await runner.index()
        # By os, since Path's own would be one more call that ruff takes for blocking (ASYNC240).
        os.mkdir(shared_repository)  # noqa: PTH102
        with pytest.raises(RepositoryEmpty):
            await runner.index()
        os.rmdir(shared_repository)  # noqa: PTH106
        assert (await runner.infer(NAME, digits[:1])).probabilities.shape == (1, 10)
    finally:
        shutil.move(away, shared_repository)
    assert await runner.index() == {NAME: True}


async def test_a_load_gives_the_facts_of_the_build(runner: Runner) -> None:
    loaded = await runner.load(NAME)
    assert [label.name for label in loaded.facts.labels] == list("0123456789")
    assert loaded.facts.manifest.network == "lenet5"
    assert (loaded.runtime.split()[-1], loaded.device) == ("onnxruntime", "cpu")


async def test_probabilities_are_those_of_the_model(
    runner: Runner, shared_repository: Path, digits: npt.NDArray[np.uint8]
) -> None:
    for batch in (digits[:1], digits[:3], digits[:8]):
        answer = await runner.infer(NAME, batch)
        np.testing.assert_allclose(
            answer.probabilities, alone(shared_repository, batch), rtol=0, atol=1e-6
        )
        assert answer.batch_size == len(batch)


async def test_requests_at_once_each_get_their_own_answer(
    runner: Runner, shared_repository: Path, digits: npt.NDArray[np.uint8]
) -> None:
    answers = await asyncio.gather(*(runner.infer(NAME, digits[i : i + 1]) for i in range(16)))
    together = np.concatenate([answer.probabilities for answer in answers])
    np.testing.assert_allclose(together, alone(shared_repository, digits), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "shape", [(9, 32, 32, 1), (1, 16, 32, 1)], ids=["more than the maximum", "another size"]
)
async def test_images_that_the_model_does_not_take_are_a_failure_of_that_request(
    runner: Runner, digits: npt.NDArray[np.uint8], shape: tuple[int, ...]
) -> None:
    with pytest.raises(InferenceFailed):
        await runner.infer(NAME, np.zeros(shape, np.uint8))
    assert (await runner.infer(NAME, digits[:1])).probabilities.shape == (1, 10)


async def test_a_version_that_is_not_loaded_is_not_ready(
    runner: Runner, digits: npt.NDArray[np.uint8]
) -> None:
    with pytest.raises(ModelNotReady):
        await runner.infer("lenet5.v9", digits[:1])


async def test_a_deadline_that_is_over_is_exceeded(
    runner: Runner, digits: npt.NDArray[np.uint8]
) -> None:
    with pytest.raises(DeadlineExceeded):
        await runner.infer(NAME, digits[:1], timeout_s=1e-6)


async def test_a_computation_that_nobody_waits_for_ends(
    runner: Runner, shared_repository: Path, digits: npt.NDArray[np.uint8]
) -> None:
    path = shared_repository / "lenet5.v8"
    loop_while_bright(shutil.copytree(shared_repository / NAME, path))
    try:
        await runner.load(path.name)
        with pytest.raises(DeadlineExceeded):
            await runner.infer(path.name, digits[:1], timeout_s=0.2)
        answer = await runner.infer(path.name, np.zeros_like(digits[:1]), timeout_s=60)
        assert answer.probabilities.shape == (1, 10)
    finally:
        await runner.unload(path.name)
        shutil.rmtree(path)


def damage_config(path: Path) -> None:
    (path / "config.pbtxt").write_text("max_batch_size: eight")


def damage_facts(path: Path) -> None:
    config_path = path / "config.pbtxt"
    config_path.write_text(config_path.read_text().replace("convoy.v1.Model", "something.else"))


def damage_model(path: Path) -> None:
    model_path = path / "1" / "model.onnx"
    model_path.write_bytes(model_path.read_bytes()[:5000])


def empty_folder(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def remove_folder(path: Path) -> None:
    shutil.rmtree(path)


@pytest.mark.parametrize(
    "damage", [damage_config, damage_facts, damage_model, empty_folder, remove_folder]
)
async def test_a_version_that_cannot_be_loaded_says_why_and_harms_no_other(
    runner: Runner, shared_repository: Path, digits: npt.NDArray[np.uint8], damage: object
) -> None:
    path = shared_repository / "lenet5.v2"
    shutil.copytree(shared_repository / NAME, path)
    damage(path)  # type: ignore[operator]
    try:
        with pytest.raises(LoadFailed) as failure:
            await runner.load("lenet5.v2")
    finally:
        await runner.unload("lenet5.v2")
        shutil.rmtree(path, ignore_errors=True)
    assert "lenet5.v2" in str(failure.value) or "config.pbtxt" in str(failure.value)
    assert str(shared_repository) not in str(failure.value)
    assert (await runner.infer(NAME, digits[:1])).batch_size == 1


async def test_an_unload_lets_what_is_in_flight_finish(
    runner: Runner, shared_repository: Path, digits: npt.NDArray[np.uint8]
) -> None:
    path = shared_repository / "lenet5.v3"
    shutil.copytree(shared_repository / NAME, path)
    try:
        await runner.load("lenet5.v3")
        requests = [
            asyncio.create_task(runner.infer("lenet5.v3", digits[i : i + 1])) for i in range(16)
        ]
        # The first is answered alone; those that came meanwhile are on their way.
        await asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED)
        await runner.unload("lenet5.v3")
        answers = await asyncio.gather(*requests, return_exceptions=True)
        assert any(not isinstance(answer, BaseException) for answer in answers)
        assert all(
            isinstance(answer, ModelNotReady) or hasattr(answer, "batch_size") for answer in answers
        )
        with pytest.raises(ModelNotReady):
            await runner.infer("lenet5.v3", digits[:1])
    finally:
        shutil.rmtree(path)
