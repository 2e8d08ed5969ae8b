"""NVIDIA's load generator measures the gateway."""

from __future__ import annotations

import base64
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from tests.server.open_inference.clients import (
    Gateway,
)

# The last release of NVIDIA's clients whose perf_analyzer runs on Debian 12: x86-64, then aarch64.
PERF_ANALYZER = """\
tritonclient==2.51.0 \\
    --hash=sha256:c485bb0123bdf310f90bc8b03d3489b28df2ffed55b30c7eee0b795b48113d52 \\
    --hash=sha256:ee6f5a508409f6c95069f4d77d34e97bef84fb4a1aedb5d82ad0ad311ad128d5
"""


@pytest.fixture(scope="session")
def perf_analyzer(
    tritonserver: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., str]:
    """NVIDIA's load generator, installed once a machine; what it says when it is run."""
    folder = Path(os.environ["CONVOY_CACHE"]) / "perf_analyzer-2_51"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            install_perf_analyzer(folder)
    libraries = tmp_path_factory.mktemp("libraries")
    # It lacks two libraries, of which the server's wheel has copies under names of their own.
    for name in ("libb64.so.0d", "libcudart.so.12"):
        stem = name.partition(".")[0]
        (copy,) = tritonserver.parents[1].glob(f"nvidia_pytriton.libs/{stem}-*")
        (libraries / name).symlink_to(copy)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [folder / "bin" / "perf_analyzer", *arguments],
            env={**os.environ, "LD_LIBRARY_PATH": str(libraries)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def install_perf_analyzer(folder: Path) -> None:
    staging = folder.with_suffix(".staging")
    shutil.rmtree(staging, ignore_errors=True)
    requirement_path = folder.with_suffix(".txt")
    requirement_path.write_text(PERF_ANALYZER)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    command += ["--require-hashes", "--only-binary", ":all:", "--target", str(staging)]
    if subprocess.run([*command, "-r", str(requirement_path)], check=False).returncode:
        pytest.skip("needs the wheel tritonclient 2.51.0, which pip could not install")
    staging.rename(folder)


@pytest.mark.parametrize(
    "options",
    [["-i", "http"], ["-i", "grpc", "-b", "2"], ["-i", "grpc", "--streaming"]],
    ids=["http", "grpc", "stream"],
)
def test_perf_analyzer_measures_the_gateway(
    lenet_gateway: Gateway,
    perf_analyzer: Callable[..., str],
    digit: bytes,
    tmp_path: Path,
    options: list[str],
) -> None:
    """It reads the metadata, the configuration and the statistics, and then sends its requests."""
    element = struct.pack("<I", len(digit)) + digit
    data = {"data": [{"image": {"b64": base64.b64encode(element).decode()}}]}
    (tmp_path / "digit.json").write_text(json.dumps(data))
    is_http = "http" in options
    address = lenet_gateway.http.removeprefix("http://") if is_http else lenet_gateway.grpc
    said = perf_analyzer(
        *("-m", "lenet5", "-u", address, *options),
        *("--input-data", str(tmp_path / "digit.json"), "--request-count", "10"),
    )
    images = 20 if "-b" in options else 10
    assert "Request count: 10" in said
    assert f"Inference count: {images}" in said
    assert "Successful request count: 10" in said
