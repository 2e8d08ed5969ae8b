"""An environment of its own for each peer, with the versions that requirements/ pins."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "peers"
REQUIREMENTS = Path(__file__).with_name("requirements")


def install(name: str) -> Path:
    """Returns the Python of a peer's environment; creates it the first time (230 MB)."""
    folder, pins = FOLDER / name, REQUIREMENTS / f"{name}.txt"
    installed = folder / "installed.txt"
    python = folder / "bin" / "python"
    if installed.exists() and installed.read_bytes() == pins.read_bytes():
        return python
    print(f"installing {name} in {folder}", flush=True)
    uv: list[str | Path] = [sys.executable, "-m", "uv"]
    subprocess.run(
        [*uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True
    )
    # The pins are complete; what they would like to bring along, such as torch, stays away.
    command = [*uv, "pip", "install", "--quiet", "--no-deps", "--python", python]
    subprocess.run([*command, "--requirement", pins], check=True)
    shutil.copy(pins, installed)
    return python
