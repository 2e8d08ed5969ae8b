"""What the gateway does before it serves."""

from __future__ import annotations

import gc
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import httpx
import pytest

from server.main import lasting_imports
from tests.conftest import RunningGateway

SOFT = 300
ASK = f"""
import logging, resource, sys
from server.startup import allow_open_files
logging.basicConfig(format="%(message)s")
resource.setrlimit(resource.RLIMIT_NOFILE, ({SOFT}, int(sys.argv[1])))
allow_open_files(int(sys.argv[2]))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


UNWANTED = {"rich", "filelock", "httpx"}  # at the start; each takes 10 to 30 ms to import


def test_a_start_imports_nothing_that_only_some_requests_or_runners_need() -> None:
    command = "import sys, convoy.cli, server.workers.worker; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    )
    assert "server.gateway" in done.stdout.split()
    assert not UNWANTED & set(done.stdout.split())


def test_what_is_imported_is_never_searched_for_garbage_and_all_else_is() -> None:
    try:
        with pytest.raises(ModuleNotFoundError), lasting_imports():
            assert not gc.isenabled()
            import_module("server.nothing")
        assert gc.isenabled()
        assert gc.get_freeze_count()
    finally:
        gc.unfreeze()


def open_files(hard: int, max_connections: int) -> subprocess.CompletedProcess[str]:
    """In a process of its own: a hard limit is lowered for good."""
    command = [sys.executable, "-c", ASK, str(hard), str(max_connections)]
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=root, env=dict(os.environ)
    )


def test_a_repository_whose_name_is_no_utf8_is_served(
    serve: Callable[..., RunningGateway],
    tmp_path: Path,
    shipped_lenet5: Path,
    digit: bytes,
    runner_name: str,
) -> None:
    repository = tmp_path / os.fsdecode("모델".encode("euc-kr"))
    shutil.copytree(shipped_lenet5, repository / shipped_lenet5.name)
    gateway = serve(f"--repository={repository}", f"--runner={runner_name}")
    gateway.wait_until_ready()
    httpx.post(f"{gateway.http}/v1/models/lenet5:classify", content=digit).raise_for_status()
    for kind in ("text/html", "application/json", "text/plain"):
        page = httpx.get(f"{gateway.admin}/statusz", headers={"accept": kind})
        assert r"\udcb8" in page.raise_for_status().text


def test_as_many_files_are_allowed_as_the_connections_need() -> None:
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 1000
    enough = open_files(hard=1000, max_connections=300)
    assert (enough.stdout.strip(), enough.stderr) == ("700", "")


def test_too_few_files_are_told_with_the_remedy() -> None:
    too_few = open_files(hard=500, max_connections=300)
    assert too_few.stdout.strip() == "500"
    assert "500 files may be open, and 700 are needed" in too_few.stderr
    assert "--max-connections" in too_few.stderr
    assert open_files(hard=500, max_connections=50).stdout.strip() == str(SOFT), "never lowered"
