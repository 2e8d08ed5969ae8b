"""A build that is killed at any moment leaves what is served as it was."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convoy import Client

ROOT = Path(__file__).parents[2]
Serve = Callable[..., Any]

# Files that a build stages: a kill waits for one of them in turn, and then for a while. Some kills
# come after the build has ended.
PARTS = ("1/model.onnx", ".", "config.pbtxt")
MAX_DELAY_S = 15.0


def contents(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of each file below the folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def published(repository: Path) -> dict[str, dict[str, str]]:
    folders = sorted(repository.glob("lenet5.v*"))
    return {folder.name: contents(folder) for folder in folders if folder.name[8:].isdecimal()}


def build(repository: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "export/build.py", "lenet5", "--weights", "random"]
    return subprocess.Popen(
        [*command, "--repository", str(repository), *options],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def is_staged(repository: Path, part: str) -> bool:
    return any((folder / part).exists() for folder in repository.glob("*.staging"))


def kill_with_its_children(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, 9)
    process.wait()


@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_builds_leave_what_is_served_and_the_next_build_cleans_up(
    times: int, serve: Serve, repository: Path, digit: bytes
) -> None:
    # The first version, which every request names, stays loaded beside the new ones.
    gateway = serve(f"--repository={repository}", f"--keep-loaded={times + 1}")
    gateway.wait_until_ready()
    # Forced, each of many builds has something to publish; it also makes all stages again.
    options = ["--force"] if times > 1 else []
    random_ = random.Random(5)
    before = published(repository)
    for number in range(times):
        process, part = build(repository, *options), PARTS[number % len(PARTS)]
        while process.poll() is None and not is_staged(repository, part):
            time.sleep(0.01)
        if number:  # the first is killed at once, while it copies the model
            time.sleep(random_.uniform(0, MAX_DELAY_S))
        kill_with_its_children(process)
        after = published(repository)
        assert {
            name: after.get(name) for name in before
        } == before  # nothing that was there changed
        for name in after.keys() - before.keys():  # published completely before the kill
            assert sorted(after[name]) == ["1/model.onnx", "config.pbtxt", "labels.txt"]
        before = after
        with Client(gateway.grpc) as client:
            assert client.classify(digit, model="lenet5", version="1").best.label == "7"
    last = build(repository, *options)
    assert last.wait(120) == 0
    left = [path.name for path in repository.iterdir() if path.suffix == ".staging"]
    assert left == []
    doctor = [sys.executable, "-m", "convoy.cli", "doctor", "--repository", str(repository)]
    done = subprocess.run(doctor, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
