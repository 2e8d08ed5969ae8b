"""The gateway's own tritonserver: what becomes of it, and of what it leaves, whoever dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from server.errors import ModelNotReady, RunnerUnavailable, ServingError, TritonCannotStart
from server.runners.base import LoadFailed
from server.runners.triton_local import TritonLocalRunner
from server.runners.tritonserver_wheel import install, lay_out_backends
from tests.loopback import until

# One event loop for all, as the server of the fixture lives in it.
on_one_loop = pytest.mark.asyncio(loop_scope="module")

IMAGE = np.full((1, 4, 4, 1), 7, np.uint8)
MakeVersion = Callable[[Path], None]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, make_version: MakeVersion) -> Path:
    path = tmp_path_factory.mktemp("triton_local")
    make_version(path / "tiny.v1")
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runner(tritonserver: Path, repository: Path) -> AsyncIterator[TritonLocalRunner]:
    runner = TritonLocalRunner(repository)
    await runner.start()
    await runner.load("tiny.v1")
    yield runner
    await runner.close()


def processes_of(repository: Path, program: str = "") -> list[int]:
    """Servers and stubs that name the repository in their command lines."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            arguments = path.read_text()
            if str(repository) in arguments and program in arguments and "triton" in arguments:
                pids.append(int(path.parent.name))
    return pids


def process_of(repository: Path, program: str) -> int:
    (pid,) = processes_of(repository, program)
    return pid


def left_outside(pid: int) -> set[Path]:
    folders = (Path("/dev/shm"), Path(tempfile.gettempdir()))
    return {path for folder in folders for path in folder.glob(f"convoy-{pid}-*")}


def leave_memory(pid: int) -> None:
    Path(f"/dev/shm/convoy-{pid}-left").touch()


async def load_again(runner: TritonLocalRunner) -> None:
    """As the manager does: look, and load what is no longer there."""
    for _ in range(3000):
        with contextlib.suppress(RunnerUnavailable):
            if not (await runner.index())["tiny.v1"]:
                await runner.load("tiny.v1")
                return
        await asyncio.sleep(0.02)
    pytest.fail("tritonserver did not come back")


@on_one_loop
async def test_a_killed_server_fails_its_requests_and_comes_back(
    runner: TritonLocalRunner, repository: Path
) -> None:
    expected = await runner.infer("tiny.v1", IMAGE)
    errors: list[ServingError] = []

    async def ask() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                try:
                    await runner.infer("tiny.v1", IMAGE)
                except ServingError as error:
                    errors.append(error)
                    await asyncio.sleep(0.01)

    clients = [asyncio.create_task(ask()) for _ in range(8)]
    await asyncio.sleep(0.2)
    # Now and then a stub outlives its server; this one cannot even see that it died.
    os.kill(process_of(repository, "backend_stub"), signal.SIGSTOP)
    os.kill(process_of(repository, "bin/tritonserver"), signal.SIGKILL)
    await load_again(runner)
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients)
    assert isinstance(errors[0], RunnerUnavailable)
    assert {type(error) for error in errors} <= {RunnerUnavailable, ModelNotReady}
    answer = await runner.infer("tiny.v1", IMAGE)
    np.testing.assert_array_equal(answer.probabilities, expected.probabilities)
    assert len(processes_of(repository, "bin/tritonserver")) == 1
    assert len(processes_of(repository, "backend_stub")) == 1


@on_one_loop
async def test_a_killed_stub_is_noticed_and_heals(
    runner: TritonLocalRunner, repository: Path
) -> None:
    os.kill(process_of(repository, "backend_stub"), signal.SIGKILL)
    with pytest.raises(RunnerUnavailable):
        await runner.infer("tiny.v1", IMAGE)
    assert await runner.index() == {"tiny.v1": False}
    with pytest.raises(ModelNotReady):
        await runner.infer("tiny.v1", IMAGE)
    await load_again(runner)
    assert await runner.index() == {"tiny.v1": True}
    assert (await runner.infer("tiny.v1", IMAGE)).batch_size == 1


@on_one_loop
async def test_a_folder_that_appears_by_rename_can_be_loaded(
    runner: TritonLocalRunner, repository: Path, make_version: MakeVersion
) -> None:
    make_version(repository / "tiny.v2.staging")
    assert await runner.index() == {"tiny.v1": True}
    (repository / "tiny.v2.staging").rename(repository / "tiny.v2")
    try:
        assert await runner.index() == {"tiny.v1": True, "tiny.v2": False}
        await runner.load("tiny.v2")
        assert (await runner.infer("tiny.v2", IMAGE)).batch_size == 1
        await runner.unload("tiny.v2")
    finally:
        shutil.rmtree(repository / "tiny.v2")


def add_nonsense(path: Path) -> None:
    (path / "config.pbtxt").write_text("nonsense: 3")


def cut_model(path: Path) -> None:
    (path / "1" / "model.onnx").write_bytes((path / "1" / "model.onnx").read_bytes()[:60])


def remove_model(path: Path) -> None:
    (path / "1" / "model.onnx").unlink()


def want_another_backend(path: Path) -> None:
    config = (path / "config.pbtxt").read_text()
    (path / "config.pbtxt").write_text(config.replace('"onnxruntime"', '"tensorrt"'))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (add_nonsense, 'no field named "nonsense"'),
        (cut_model, "Protobuf parsing failed"),
        (remove_model, "File doesn't exist"),
        (want_another_backend, "unable to find backend library for backend 'tensorrt'"),
        (shutil.rmtree, "No such file or directory"),
    ],
)
@on_one_loop
async def test_a_broken_version_says_why_and_the_others_serve(
    runner: TritonLocalRunner,
    repository: Path,
    make_version: MakeVersion,
    damage: Callable[[Path], None],
    reason: str,
) -> None:
    make_version(repository / "tiny.v3")
    damage(repository / "tiny.v3")
    try:
        with pytest.raises(LoadFailed, match=reason) as raised:
            await runner.load("tiny.v3")
    finally:
        shutil.rmtree(repository / "tiny.v3", ignore_errors=True)
    assert str(repository) not in str(raised.value)
    assert (await runner.infer("tiny.v1", IMAGE)).batch_size == 1


@on_one_loop
async def test_close_leaves_nothing(
    tritonserver: Path, tmp_path: Path, make_version: MakeVersion
) -> None:
    make_version(tmp_path / "tiny.v1")
    already_there = left_outside(os.getpid())
    runner = TritonLocalRunner(tmp_path, stop_timeout_s=1.0)
    await runner.start()
    await runner.load("tiny.v1")
    assert len(processes_of(tmp_path)) == 2
    of_this_one = left_outside(os.getpid()) - already_there
    assert len(of_this_one) == 2
    # Having met a dead stub, tritonserver hangs at its end and leaves its shared memory.
    os.kill(process_of(tmp_path, "backend_stub"), signal.SIGKILL)
    with pytest.raises(RunnerUnavailable):
        await runner.infer("tiny.v1", IMAGE)
    await runner.close()
    await until(lambda: not processes_of(tmp_path))
    assert not of_this_one & left_outside(os.getpid())
    await runner.close()


GATEWAY = """\
import asyncio, sys
from pathlib import Path
from server.runners.triton_local import TritonLocalRunner

async def main():
    runner = TritonLocalRunner(Path(sys.argv[1]))
    await runner.start()
    await runner.load("tiny.v1")
    print("loaded", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@on_one_loop
async def test_a_killed_gateway_takes_its_server_along_and_the_next_one_clears_up(
    tritonserver: Path, tmp_path: Path, make_version: MakeVersion
) -> None:
    make_version(tmp_path / "tiny.v1")
    gateway = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", GATEWAY, str(tmp_path)), stdout=asyncio.subprocess.PIPE
    )
    assert gateway.stdout
    assert await gateway.stdout.readline() == b"loaded\n"
    gateway.kill()
    await gateway.wait()
    await until(lambda: not processes_of(tmp_path))
    leave_memory(gateway.pid)
    assert left_outside(gateway.pid)
    runner = TritonLocalRunner(tmp_path)
    await runner.start()
    assert not left_outside(gateway.pid)
    await runner.close()


@on_one_loop
async def test_a_server_that_cannot_start_is_one_sentence(
    tritonserver: Path, tmp_path: Path
) -> None:
    runner = TritonLocalRunner(tmp_path)
    host, _, port = runner.address.rpartition(":")
    with socket.create_server((host, int(port))):
        with pytest.raises(TritonCannotStart, match="ended with code"):
            await runner.start()
        await runner.close()
    assert not processes_of(tmp_path)


def test_without_a_package_index_the_install_fails_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"CONFIG_FILE": os.devnull, "NO_INDEX": "1", "FIND_LINKS": "."}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    with pytest.raises(TritonCannotStart, match="package index"):
        install(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tritonserver.lock"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        TritonCannotStart, match=re.escape(f"{tmp_path}/file/convoy: Not a directory")
    ):
        install(tmp_path / "file" / "convoy")


def test_a_missing_libpython_is_found_before_a_load_would_hang(
    tritonserver: Path, tmp_path: Path
) -> None:
    other_python = "3.8" if sys.version_info[:2] != (3, 8) else "3.9"
    stubs = tmp_path / "server" / "python_backend_stubs"
    stubs.mkdir(parents=True)
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    (stubs / here).symlink_to(tritonserver / "python_backend_stubs" / other_python)
    (tmp_path / "server" / "backends").symlink_to(tritonserver / "backends")
    with pytest.raises(TritonCannotStart, match=rf"libpython{other_python}\.so"):
        lay_out_backends(tmp_path / "server", tmp_path / "backends")
