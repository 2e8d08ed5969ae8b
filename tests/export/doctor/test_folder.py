"""What fixes a version: a rebuild, a rollback, or withdrawal."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

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


def test_a_build_command_that_is_none_of_ours_is_never_a_remedy(repository: Path) -> None:
    facts(lambda told: told["manifest"].update(build_command="rm -rf /"))(repository / "lenet5.v1")
    file("labels.txt", None)(repository / "lenet5.v1")
    (finding,) = examine(repository)["findings"]
    assert finding["remedy"] == REBUILD_BY_NAME.format(repository=repository)
