"""What does not belong beside the versions of a repository."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from tests.export.doctor.planting import examine, problems

ROOT_PLANTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a stray folder": (
        lambda path: (path / "old").mkdir(),
        "old: a folder that is not a version",
        "rm -r {repository}/old",
    ),
    "a stray file": (
        lambda path: (path / "resnet152.pth").touch(),
        "resnet152.pth: a file that is not a version",
        "rm -r {repository}/resnet152.pth",
    ),
    "a file like a version": (
        lambda path: (path / "lenet5.v2").touch(),
        "lenet5.v2: a file that is not a version",
        "rm -r {repository}/lenet5.v2",
    ),
    "a number with a zero": (
        lambda path: (path / "lenet5.v1").rename(path / "lenet5.v01"),
        "lenet5.v01: expected a name of .*, found a name that no gateway serves",
        "mv {repository}/lenet5.v01 {repository}/lenet5.v1",
    ),
    "a number that is taken": (
        lambda path: shutil.copytree(path / "lenet5.v1", path / "lenet5.v01"),
        "lenet5.v01: expected a name of .*, found a name that no gateway serves",
        "mv {repository}/lenet5.v01 {repository}/lenet5.v2",
    ),
    "a name with bad letters": (
        lambda path: (path / "lenet5.v1").rename(path / "My Net.v1"),
        "My Net.v1: expected a name of .*, found a name that no gateway serves",
        "mv '{repository}/My Net.v1' {repository}/my-net.v1",
    ),
    "a link to nowhere": (
        lambda path: (path / "vgg16.v1").symlink_to("/nowhere/vgg16.v1"),
        "vgg16.v1 is a link to /nowhere/vgg16.v1, which does not exist",
        "rm -r {repository}/vgg16.v1",
    ),
    "a version that its successor should have replaced": (
        lambda path: (path / "lenet5.v1").rename(path / "lenet5.v1.replaced"),
        "lenet5.v1 is missing: the build that replaces it was killed",
        "mv {repository}/lenet5.v1.replaced {repository}/lenet5.v1",
    ),
}


@pytest.mark.parametrize("fault", ROOT_PLANTS)
def test_what_lies_beside_versions_is_found_and_fixed(fault: str, repository: Path) -> None:
    plant, words, remedy = ROOT_PLANTS[fault]
    shutil.copytree(repository / "lenet5.v1", repository / "another.v1")
    plant(repository)
    document = examine(repository)
    (finding,) = document["findings"]
    assert re.search(words, finding["problem"])
    assert (finding["version"], finding["is_fault"]) == ("", True)
    assert finding["remedy"] == remedy.format(repository=repository)
    subprocess.run(shlex.split(finding["remedy"]), check=True)
    assert examine(repository)["findings"] == []


def test_an_empty_repository_is_a_fault(tmp_path: Path) -> None:
    (finding,) = examine(tmp_path)["findings"]
    assert finding["problem"] == "expected versions NAME.vN, found none"
    assert finding["remedy"] == f"python export/build.py lenet5 --repository {tmp_path}"


def test_what_a_killed_build_left_is_noted(repository: Path) -> None:
    (repository / "lenet5.v2.staging").mkdir()
    (repository / ".lenet5.v2.lock").touch()
    document = examine(repository)
    assert problems(document).startswith("lenet5.v2.staging remains of a build that was killed")
    assert document["healthy"]


def test_a_build_at_work_is_passed_over(repository: Path) -> None:
    (repository / "lenet5.v2.staging").mkdir()
    with FileLock(repository / ".lenet5.v2.lock"):
        assert examine(repository)["findings"] == []


def test_a_model_that_is_withdrawn_altogether_is_noted(repository: Path) -> None:
    (repository / "lenet5.v1").rename(repository / "lenet5.v1.withdrawn")
    document = examine(repository)
    (finding,) = document["findings"]
    assert "all versions of lenet5 are withdrawn" in finding["problem"]
    assert document["healthy"]
    words = [sys.executable, "-m", "convoy.cli", *shlex.split(finding["remedy"])[1:]]
    subprocess.run(words, check=True)
    assert examine(repository)["findings"] == []
