"""The JavaScript client, by Node's own test runner, against a gateway that asks for keys."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEY = "convoy_of_a_test"
BURST = 20  # enough for all tests but the one that is refused, which comes late


def test_the_client_passes_its_tests(
    serve: Callable[..., Any], shipped_lenet5: Path, tmp_path: Path
) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node.js")
    keys = tmp_path / "keys.toml"
    digest = sha256(KEY.encode()).hexdigest()
    keys.write_text(f'[tester]\nsha256 = "{digest}"\nrequests_per_s = 1\nburst = {BURST}\n')
    gateway = serve(
        f"--repository={shipped_lenet5.parent}", "--models=lenet5", f"--api-keys={keys}"
    )
    gateway.wait_until_ready()
    image = ROOT / "tests" / "data" / "digit-7.png"
    facts = {"CONVOY_URL": gateway.http, "CONVOY_KEY": KEY, "IMAGE": str(image)}
    ended = subprocess.run(
        [node, "--test", "convoy.test.js"],
        cwd=ROOT / "clients" / "javascript",
        env={**os.environ, **facts},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "# fail 0" in ended.stdout or "fail 0" in ended.stdout
