"""What `convoy doctor` prints, and what its arguments choose."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.export.doctor.planting import ROOT, app, config, examine, file

COMMAND = [sys.executable, "-m", "convoy.cli", "doctor"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "100"}
    environment.pop("CONVOY_REPOSITORY", None)
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_a_healthy_repository_is_one_line(repository: Path) -> None:
    done = run("--repository", str(repository))
    assert (done.returncode, done.stdout) == (0, "1 version, nothing wrong\n")
    assert done.stderr == ""


def test_a_fault_is_shown_below_its_version(repository: Path) -> None:
    shutil.copytree(repository / "lenet5.v1", repository / "lenet5.v2")
    file("1/notes.txt", "mine")(repository / "lenet5.v2")
    done = run("--repository", str(repository))
    assert done.returncode == 1
    stray = f"{repository}/lenet5.v2/1/notes.txt"
    first, second, problem, remedy, last = done.stdout.splitlines()
    assert (first, second) == ("✓ lenet5.v1", "✗ lenet5.v2")
    assert problem.startswith("    ✗ 1/notes.txt: expected ")
    assert remedy == f"      → rm -r {stray}"
    assert last == "2 versions, 1 of them with faults; 1 fault in all"
    document = json.loads(run("--repository", str(repository), "--json").stdout)
    assert document == {
        "repository": str(repository),
        "healthy": False,
        "versions": ["lenet5.v1", "lenet5.v2"],
        "findings": [
            {
                "version": "lenet5.v2",
                "check": "files",
                "problem": problem.removeprefix("    ✗ "),
                "remedy": f"rm -r {stray}",
                "is_fault": True,
            }
        ],
    }


def test_what_stands_in_files_does_not_steer_the_terminal(repository: Path) -> None:
    config(lambda message: setattr(message, "platform", "x"))(repository / "lenet5.v1")
    (repository / "\x1b[31mred").touch()
    done = run("--repository", str(repository))
    assert "\x1b" not in done.stdout
    assert "red: a file that is not a version" in done.stdout


@pytest.mark.parametrize("name", ["lenet5", "lenet5.v2"])
def test_names_choose_what_is_examined(name: str, repository: Path) -> None:
    shutil.copytree(repository / "lenet5.v1", repository / "lenet5.v2")
    shutil.copytree(repository / "lenet5.v1", repository / "another.v1")
    file("labels.txt", None)(repository / "another.v1")
    (repository / "stray").mkdir()
    document = examine(repository, name)
    assert document["healthy"]
    assert document["versions"] == [
        version for version in ("lenet5.v1", "lenet5.v2") if version.startswith(name)
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet9"], "has no resnet9; it has lenet5.v1"),
        (["--triton", "localhost"], "'localhost' is not HOST:PORT"),
        (["--repository", "/nowhere/models"], "/nowhere/models is not a folder"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], words: str, repository: Path) -> None:
    result = CliRunner().invoke(
        app, arguments, env={"CONVOY_REPOSITORY": str(repository), "COLUMNS": "300"}
    )
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


def test_help_teaches() -> None:
    shown = run("--help").stdout
    for words in ("--repository", "--triton", "--json", "convoy doctor resnet152 lenet5.v2"):
        assert words in shown


def test_it_needs_no_more_than_serving_installs(repository: Path) -> None:
    code = f"""
import sys
from export.doctor.command import doctor
try:
    doctor(None, __import__("pathlib").Path({str(repository)!r}), None, False)
except BaseException as end:
    print(type(end).__name__, getattr(end, "exit_code", end))
print({{"torch", "onnx", "server", "tensorrt", "sklearn"}} & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 version, nothing wrong\nExit 0\nset()\n"
