"""What fixes a version: a rebuild, a rollback, or withdrawal."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from export.doctor.rebuild import rebuild_command
from tests.export.doctor.planting import REBUILD_BY_NAME, examine, facts, file


def test_a_version_that_is_not_the_highest_is_withdrawn(repository: Path) -> None:
    shutil.copytree(repository / "lenet5.v1", repository / "lenet5.v2")
    file("1/model.onnx", b"damaged")(repository / "lenet5.v1")
    remedy = examine(repository)["findings"][0]["remedy"]
    assert remedy == f"mv {repository}/lenet5.v1 {repository}/lenet5.v1.withdrawn"
    subprocess.run(shlex.split(remedy), check=True)
    assert examine(repository)["findings"] == []


def test_one_without_a_build_command_is_rolled_back(repository: Path) -> None:
    shutil.copytree(repository / "lenet5.v1", repository / "lenet5.v2")
    file("config.pbtxt", "{")(repository / "lenet5.v2")
    (finding,) = examine(repository)["findings"]
    assert finding["remedy"] == f"convoy rollback lenet5 --repository {repository}"
    words = [sys.executable, "-m", "convoy.cli", *shlex.split(finding["remedy"])[1:]]
    subprocess.run(words, check=True)
    assert examine(repository)["findings"] == []


def test_one_of_an_unknown_network_steps_aside(repository: Path) -> None:
    folder = (repository / "lenet5.v1").rename(repository / "my-flowers.v3")
    file("config.pbtxt", "{")(folder)
    (finding,) = examine(repository)["findings"]
    assert finding["remedy"] == f"mv {folder} {folder}.withdrawn"


@pytest.mark.parametrize(
    "recorded",
    [
        "rm -rf /",
        "python export/build.py lenet5; rm -rf /",
        "python export/build.py lenet5 --weights $(id)",
        "python export/build.py lenet5 --weights-url http://evil.example/ --weights imagenet",
        "python export/build.py lenet5 --weights flowers.pth",
        "python export/build.py vgg16",
        "python export/build.py lenet5 --seed",
        "python export/build.py lenet5 '",
    ],
)
def test_a_recorded_build_is_quoted_and_never_a_command(repository: Path, recorded: str) -> None:
    change = facts(lambda told: told["manifest"].update(build_command=recorded))
    change(repository / "lenet5.v1")
    file("labels.txt", None)(repository / "lenet5.v1")
    fault, build = examine(repository)["findings"]
    folder = repository / "lenet5.v1"
    assert fault["remedy"] == build["remedy"] == f"mv {folder} {folder}.withdrawn"
    assert not build["is_fault"] and repr(recorded) in build["problem"]


def test_a_version_without_facts_is_built_by_name(repository: Path) -> None:
    file("config.pbtxt", "{")(repository / "lenet5.v1")
    (finding,) = examine(repository)["findings"]
    assert finding["remedy"] == REBUILD_BY_NAME.format(repository=repository)


def test_a_build_of_the_catalogs_own_weights_is_repeated() -> None:
    for recorded in (
        "python export/build.py resnet50 --weights random --seed 3",
        "python export/build.py resnet50 --fp16 --format plan --weights imagenet1k_v2",
    ):
        assert rebuild_command("resnet50", recorded) == recorded
