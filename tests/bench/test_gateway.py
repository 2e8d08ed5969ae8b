"""The measurement of the gateway's own cost runs; what it measures is not asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="reads the CPU clocks of Linux")
def test_every_kind_of_request_is_compared(tmp_path: Path) -> None:
    command = [sys.executable, "bench/gateway.py", "--pairs=1", "--requests=16"]
    subprocess.run(
        [*command, f"--json={tmp_path / 'figures.json'}"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        check=True,
        stderr=subprocess.DEVNULL,
    )
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [figure["name"] for figure in figures] == [
        f"{wire}, {what}"
        for what in ("answered", "refused")
        for wire in ("gRPC", "HTTP", "HTTP by httptools")
    ]
    assert all(figure["bare_ms"] > 0 and figure["gateway_ms"] > 0 for figure in figures)
