"""The README's first five minutes, as they stand there, against a running gateway."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


class Gateway(Protocol):
    http: str
    grpc: str


def commands(start: str) -> list[str]:
    return [line.strip() for line in README.splitlines() if line.startswith(f"    {start}")]


def test_the_curl_command_gets_the_label(lenet_gateway: Gateway) -> None:
    if not shutil.which("curl"):
        pytest.skip("needs curl")
    command, status = commands("curl")
    assert status.startswith("curl localhost:8082/statusz")
    words = shlex.split(command.replace("localhost:8080", lenet_gateway.http))
    done = subprocess.run(words, cwd=ROOT, capture_output=True, check=True)
    answer = json.loads(done.stdout)
    assert (answer["classes"][0]["label"], len(answer["classes"])) == ("7", 3)


def test_the_convoy_command_prints_the_label(lenet_gateway: Gateway) -> None:
    (command,) = (line for line in commands(".venv/bin/convoy") if "lenet5" in line)
    words = [sys.executable, "-m", "convoy.cli", *shlex.split(command)[1:]]
    done = subprocess.run(
        [*words, "--server", lenet_gateway.grpc],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[1].split()[1] == "7"


def test_the_python_example_prints_the_label(
    lenet_gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(ROOT)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code.replace("localhost:8081", lenet_gateway.grpc), {})
    assert printed.getvalue().split()[0] == "7"


def test_the_build_commands_have_options_that_exist() -> None:
    help_text = subprocess.run(
        [sys.executable, "export/build.py", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.findall(r"python export/build\.py ([^\n`]*)", README)
    assert found
    for command in found:
        for option in re.findall(r"--[a-z0-9-]+", command):
            assert option in help_text, command
