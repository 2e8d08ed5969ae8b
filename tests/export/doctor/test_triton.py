"""The doctor compares a running Triton with the folders."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from export.doctor.folder import Repository, VersionFolder
from export.doctor.triton import examine_plan, tensorrt_major
from server.runners.triton_local import TritonLocalRunner
from tests.export.doctor.planting import Json, examine, facts, file, plan


class ClosedTriton(TritonLocalRunner):
    """A Triton that loads what it finds at its start, and lets nobody load or unload."""

    def _command_line(self, server_path: Path, backends_path: Path) -> list[str]:
        return [*super()._command_line(server_path, backends_path), "--model-control-mode=none"]


@pytest_asyncio.fixture
async def triton(tritonserver: Path, repository: Path) -> AsyncIterator[TritonLocalRunner]:
    shutil.copytree(repository / "lenet5.v1", repository / "lenet5.v2")
    runner = TritonLocalRunner(repository)
    await runner.start()
    yield runner
    await runner.close()


async def test_a_running_triton_is_compared_with_the_folders(
    triton: TritonLocalRunner, repository: Path, tmp_path: Path
) -> None:
    async def ask(path: Path = repository) -> Json:
        return await asyncio.to_thread(examine, path, "--triton", triton.address)

    await triton.load("lenet5.v1")
    assert (await ask())["findings"] == []  # lenet5.v2 can be loaded by who wants it

    facts(lambda told: told["manifest"].update(paper="another"))(repository / "lenet5.v1")
    (finding,) = (await ask())["findings"]
    assert "found a version that it loaded before the folder changed" in finding["problem"]
    load = "http://127.0.0.1:8000/v2/repository/models/lenet5.v1/load"
    assert finding["remedy"] == f"curl -X POST {load}"
    await triton.unload("lenet5.v1")
    await triton.load("lenet5.v1")
    assert (await ask())["findings"] == []

    another = tmp_path / "another"
    shutil.copytree(repository / "lenet5.v1", another / "lenet5.v9")
    (finding,) = (await ask(another))["findings"]
    assert "found no lenet5.v9 in its repository" in finding["problem"]
    start = f"tritonserver --model-repository={another} --model-control-mode=explicit"
    assert finding["remedy"] == start

    intact = (repository / "lenet5.v2" / "1" / "model.onnx").read_bytes()
    file("1/model.onnx", b"damaged")(repository / "lenet5.v2")
    with pytest.raises(Exception, match="does not load"):
        await triton.load("lenet5.v2")
    file("1/model.onnx", intact)(repository / "lenet5.v2")
    (finding,) = (await ask())["findings"]
    assert re.search("found a failed load: .*Protobuf parsing failed", finding["problem"])
    assert finding["remedy"].endswith("/lenet5.v2/load")

    plan()(repository / "lenet5.v2")
    notes = [finding for finding in (await ask())["findings"] if not finding["is_fault"]]
    assert [note["problem"] for note in notes] == [
        "the TensorRT of Triton 2.51.0 is unknown here; the plan needs 10.16.1.11"
    ]


async def test_a_triton_that_lets_nobody_load_is_noted(
    tritonserver: Path, repository: Path
) -> None:
    runner = ClosedTriton(repository)
    await runner.start()
    try:
        shutil.copytree(repository / "lenet5.v1", repository / "lenet5.v2")
        document = await asyncio.to_thread(examine, repository, "--triton", runner.address)
    finally:
        await runner.close()
    control, late = document["findings"]
    assert control["problem"].startswith("model control: expected explicit, found closed")
    assert not control["is_fault"]
    assert "found it is not loaded" in late["problem"] or "found no lenet5.v2" in late["problem"]


def test_where_no_triton_answers_that_is_a_fault(repository: Path) -> None:
    (finding,) = examine(repository, "--triton", "127.0.0.1:1")["findings"]
    assert finding["problem"].startswith("Triton at 127.0.0.1:1: expected an answer, found failed")


def test_a_plan_wants_the_tensorrt_major_its_own_version(repository: Path) -> None:
    plan()(repository / "lenet5.v1")
    version = VersionFolder(Repository(repository, is_default=True), repository / "lenet5.v1")
    assert list(examine_plan(version, "2.69.0", "load")) == []
    (finding,) = examine_plan(version, "2.70.0", "load")
    assert "TensorRT as in Triton 2.70.0: expected 11.x, found 10.16.1.11" in finding.problem
    assert finding.remedy == "python export/build.py lenet5 --weights digits --force --replace"
    assert finding.is_fault
    (note,) = examine_plan(version, "2.51.0", "load")
    assert (note.remedy, note.is_fault) == ("load", False)


@pytest.mark.parametrize(
    ("triton", "tensorrt"),
    [
        ("2.51.0", None),
        ("2.65.0", None),
        ("2.66.0", 10),
        ("2.69.1", 10),
        ("2.70.0", 11),
        ("2.72.0dev", 11),
        ("unknown", None),
    ],
)
def test_a_release_of_triton_tells_its_tensorrt(triton: str, tensorrt: int | None) -> None:
    assert tensorrt_major(triton) == tensorrt
