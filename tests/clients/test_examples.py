"""Every program of clients/examples, as its user runs it, against one gateway."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "clients" / "examples"
SEVEN = str(ROOT / "tests" / "data" / "digit-7.png")
NO_IMAGE = str(ROOT / "LICENSE")
PYTHON = {"classify.py", "batch.py", "asynchronous.py", "stream.py", "kserve.py"}
# Run by tests/protocol/test_other_languages.py, which installs grpc-js.
ELSEWHERE = {"classify_grpc.cjs"}


class Gateway(Protocol):
    http: str
    grpc: str


def run_example(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = sys.executable if name in PYTHON else {".sh": "sh", ".mjs": "node"}[Path(name).suffix]
    if not shutil.which(program):
        pytest.skip(f"needs {program}")
    return subprocess.run(
        [program, str(EXAMPLES / name), *arguments],
        env={**os.environ, "no_proxy": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_one_image_by_curl(lenet_gateway: Gateway) -> None:
    if not shutil.which("curl"):
        pytest.skip("needs curl")
    answered = run_example("classify.sh", lenet_gateway.http, "lenet5", SEVEN)
    assert answered.returncode == 0 and '"label":"7"' in answered.stdout.replace(" ", "")
    refused = run_example("classify.sh", lenet_gateway.http, "lenet5", NO_IMAGE)
    assert refused.returncode == 22 and "IMAGE_FORMAT_UNSUPPORTED" in refused.stdout


@pytest.mark.parametrize(
    ("name", "wire", "error"),
    [
        ("classify.py", "grpc", "IMAGE_FORMAT_UNSUPPORTED: "),
        ("classify.py", "http", "IMAGE_FORMAT_UNSUPPORTED: "),
        ("classify.mjs", "http", "IMAGE_FORMAT_UNSUPPORTED: "),
        ("kserve.py", "grpc", "[StatusCode.INVALID_ARGUMENT]"),
    ],
)
def test_one_image_and_an_error(name: str, wire: str, error: str, lenet_gateway: Gateway) -> None:
    server = getattr(lenet_gateway, wire)
    answered = run_example(name, server, "lenet5", SEVEN)
    assert (answered.returncode, answered.stderr) == (0, "")
    assert answered.stdout.startswith("7 0.") and len(answered.stdout.splitlines()) == 3
    refused = run_example(name, server, "lenet5", NO_IMAGE)
    assert refused.returncode == 1 and error in refused.stderr


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("batch.py", "IMAGE_FORMAT_UNSUPPORTED"),
        ("asynchronous.py", "INVALID_ARGUMENT"),
        ("stream.py", "in none of the formats"),
    ],
)
def test_an_invalid_image_of_several_fails_alone(
    name: str, error: str, lenet_gateway: Gateway
) -> None:
    done = run_example(name, lenet_gateway.grpc, "lenet5", SEVEN, NO_IMAGE, SEVEN)
    assert (done.returncode, done.stderr) == (0, "")
    first, invalid, last = done.stdout.splitlines()
    assert first == last and first.startswith(f"{SEVEN} 7 0.")
    assert invalid.startswith(NO_IMAGE) and error in invalid


def test_the_page_of_other_languages_has_the_grpc_js_program() -> None:
    page = (ROOT / "docs" / "other-languages.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```js\n(.*?)```", page, re.DOTALL)
    assert (EXAMPLES / "classify_grpc.cjs").read_text(encoding="utf-8") == program


def test_every_example_is_run_and_listed() -> None:
    names = {
        path.name for path in EXAMPLES.iterdir() if path.suffix in (".sh", ".py", ".mjs", ".cjs")
    }
    assert names == PYTHON | {"classify.sh", "classify.mjs"} | ELSEWHERE
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert names <= set(re.findall(r"\]\((\w+\.\w+)\)", readme))
