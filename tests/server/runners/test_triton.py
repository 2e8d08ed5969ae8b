"""A Triton that is there already: what is Triton's alone, beyond the conformance suite."""

from __future__ import annotations

import shutil
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from server.errors import InferenceFailed, ModelNotReady, RunnerUnavailable
from server.runners.base import LoadFailed
from server.runners.triton import TritonRunner
from server.runners.triton_local import TritonLocalRunner

pytestmark = pytest.mark.asyncio(loop_scope="module")

IMAGE = np.full((1, 4, 4, 1), 7, np.uint8)


class ClosedTriton(TritonLocalRunner):
    """A Triton that loads what it finds at its start, and lets nobody load or unload."""

    def _command_line(self, server_path: Path, backends_path: Path) -> list[str]:
        return [*super()._command_line(server_path, backends_path), "--model-control-mode=none"]


@pytest.fixture(scope="module")
def repository(
    tmp_path_factory: pytest.TempPathFactory, make_version: Callable[[Path], None]
) -> Path:
    path = tmp_path_factory.mktemp("triton")
    make_version(path / "tiny.v1")
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runner(tritonserver: Path, repository: Path) -> AsyncIterator[TritonRunner]:
    """A gateway's view of a Triton that somebody else runs."""
    server = TritonLocalRunner(repository)
    await server.start()
    runner = TritonRunner(server.address)
    await runner.load("tiny.v1")
    yield runner
    await runner.close()
    await server.close()


async def test_a_load_tells_what_triton_made_of_the_config(runner: TritonRunner) -> None:
    loaded = await runner.load("tiny.v1")
    assert [label.name for label in loaded.facts.labels] == ["ant", "bee", "cow"]
    assert (loaded.runtime, loaded.device) == ("triton onnxruntime", "cpu")


async def test_a_version_that_was_let_go_is_not_ready_and_loads_again(
    runner: TritonRunner, repository: Path, make_version: Callable[[Path], None]
) -> None:
    make_version(repository / "tiny.v2")
    try:
        await runner.load("tiny.v2")
        before = await runner.infer("tiny.v2", IMAGE)
        await runner.unload("tiny.v2")
        assert await runner.index() == {"tiny.v1": True, "tiny.v2": False}
        with pytest.raises(ModelNotReady):
            await runner.infer("tiny.v2", IMAGE)
        await runner.load("tiny.v2")
        after = await runner.infer("tiny.v2", IMAGE)
        np.testing.assert_array_equal(before.probabilities, after.probabilities)
        await runner.unload("tiny.v2")
    finally:
        shutil.rmtree(repository / "tiny.v2")


async def test_a_version_that_nobody_knows_fails_to_load(runner: TritonRunner) -> None:
    with pytest.raises(LoadFailed, match=r"tiny\.v9 has no folder"):
        await runner.load("tiny.v9")
    await runner.unload("tiny.v9")


async def test_the_reason_of_a_failed_load_is_one_line_without_folders(
    runner: TritonRunner, repository: Path, make_version: Callable[[Path], None]
) -> None:
    make_version(repository / "tiny.v3")
    (repository / "tiny.v3" / "1" / "model.onnx").write_bytes(b"not a graph")
    try:
        with pytest.raises(
            LoadFailed, match=r"tiny\.v3 does not load: .*Protobuf parsing failed\.$"
        ) as raised:
            await runner.load("tiny.v3")
    finally:
        shutil.rmtree(repository / "tiny.v3")
    assert "/" not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert (await runner.infer("tiny.v1", IMAGE)).batch_size == 1


async def test_a_model_of_another_contract_fails_to_load(
    runner: TritonRunner, repository: Path, make_version: Callable[[Path], None]
) -> None:
    make_version(repository / "tiny.v4")
    config_path = repository / "tiny.v4" / "config.pbtxt"
    config_path.write_text(config_path.read_text().replace("TYPE_UINT8", "TYPE_FP32"))
    try:
        with pytest.raises(LoadFailed, match="expected the input image, of uint8"):
            await runner.load("tiny.v4")
        await runner.unload("tiny.v4")
    finally:
        shutil.rmtree(repository / "tiny.v4")


async def test_the_reason_of_a_failed_inference_is_tritons(runner: TritonRunner) -> None:
    with pytest.raises(InferenceFailed, match="batch-size must be <= 8"):
        await runner.infer("tiny.v1", np.zeros((9, 4, 4, 1), np.uint8))


async def test_where_nobody_listens_the_runner_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    runner = TritonRunner(address)
    for call in (
        runner.index(),
        runner.load("tiny.v1"),
        runner.unload("tiny.v1"),
        runner.infer("tiny.v1", IMAGE),
    ):
        with pytest.raises(RunnerUnavailable, match=address) as raised:
            await call
        assert raised.value.retry_after_s
    await runner.close()


async def test_where_the_control_is_closed_what_is_ready_is_used(
    tritonserver: Path, repository: Path, make_version: Callable[[Path], None]
) -> None:
    server = ClosedTriton(repository)
    await server.start()
    runner = TritonRunner(server.address)
    try:
        assert await runner.index() == {"tiny.v1": True}
        await runner.load("tiny.v1")
        await runner.unload("tiny.v1")
        assert (await runner.infer("tiny.v1", IMAGE)).probabilities.shape == (1, 3)
        with pytest.raises(LoadFailed, match="--model-control-mode=explicit"):
            await runner.load("tiny.v2")
    finally:
        await runner.close()
        await server.close()
