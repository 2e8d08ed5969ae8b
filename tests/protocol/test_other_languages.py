"""protocol/ is complete, and docs/other-languages.md works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest
from filelock import FileLock
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.rpc import error_details_pb2, status_pb2

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "other-languages.md").read_text(encoding="utf-8")
DIGIT = ROOT / "tests" / "data" / "digit-7.png"


class Gateway(Protocol):
    grpc: str


@pytest.mark.parametrize("module", [status_pb2, error_details_pb2])
def test_files_of_google_are_those_of_its_package(module: object) -> None:
    name = module.DESCRIPTOR.name  # type: ignore[attr-defined]
    packaged = Path(str(module.__file__)).parents[2] / name  # type: ignore[attr-defined]
    shipped = ROOT / "protocol" / name
    assert shipped.read_bytes() == packaged.read_bytes(), "run `make protocol`"
    assert "Licensed under the Apache License, Version 2.0" in shipped.read_text()


def test_protoc_needs_protocol_alone(tmp_path: Path) -> None:
    descriptors = tmp_path / "contract.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", "protocol", "--include_imports"]
    command += [f"--descriptor_set_out={descriptors}", "convoy/v1/classifier.proto"]
    subprocess.run(command, cwd=ROOT, check=True)
    files = FileDescriptorSet.FromString(descriptors.read_bytes()).file
    assert {"google/rpc/status.proto", "convoy/v1/classifier.proto"} <= {f.name for f in files}


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """Installs the packages that the page names, once on this machine."""
    if not shutil.which("npm"):
        pytest.skip("needs npm")
    (command,) = re.findall(r"`(npm install [^`]+)`", PAGE)
    folder = Path(os.environ["CONVOY_CACHE"]) / re.sub(r"[^\w.]+", "-", command)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "complete").exists():
            folder.mkdir(exist_ok=True)
            options = ["--no-package-lock", "--no-audit", "--no-fund", "--prefix", str(folder)]
            words = [*command.split(), *options]
            done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
            if done.returncode:
                pytest.skip(f"npm cannot install them: {done.stderr}")
            (folder / "complete").touch()
    return folder / "node_modules"


def classify(
    node_modules: Path, folder: Path, server: str, model: str, image: Path
) -> subprocess.CompletedProcess[str]:
    """Runs the page's program."""
    (program,) = re.findall(r"```js\n(.*?)```", PAGE, re.DOTALL)
    script = folder / "classify.js"
    script.write_text(program, encoding="utf-8")
    return subprocess.run(
        ["node", script, server, model, image],
        env=os.environ | {"NODE_PATH": str(node_modules)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_grpc_js_classifies_an_image(
    node_modules: Path, tmp_path: Path, lenet_gateway: Gateway
) -> None:
    done = classify(node_modules, tmp_path, lenet_gateway.grpc, "lenet5", DIGIT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("7 0.99") and len(done.stdout.splitlines()) == 3


def test_grpc_js_reads_the_details_of_an_error(
    node_modules: Path, tmp_path: Path, lenet_gateway: Gateway
) -> None:
    done = classify(node_modules, tmp_path, lenet_gateway.grpc, "lenet5", Path(__file__))
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("IMAGE_FORMAT_UNSUPPORTED")
