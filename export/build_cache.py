"""What earlier builds have made already, by the hash of everything that went in.

A stage makes one file and some facts of it. Both are kept in the cache (~/.cache/convoy/stages, or
where XDG_CACHE_HOME says), so that a build that was stopped goes on where it was, and one that
differs in its last step repeats that step alone. The least recently used leave when the cache is
full. What a stage depends on is in its key, the code of the project included: nothing in the cache
is ever out of date.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from convoy.v1 import classifier_pb2 as pb

ROOT = Path(__file__).resolve().parents[1]
# The preparation and the private gateway are part of what a build proves with.
CODE = ("export", "server", "clients/python/convoy")
# What makes a version, for its manifest.
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")
FILE, FACTS, SHA256 = "file", "facts.binpb", "sha256"
MAX_CACHE_BYTES = 8_000_000_000
A_DAY_S = 86_400.0
MAKING = "making-"


def cache_path() -> Path:
    """As the XDG base directory specification has it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convoy"


def digest(*parts: Any) -> str:
    """sha256 of anything that JSON can write, in hexadecimal."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def code_sha256() -> str:
    """Of all of the project's own code that a build runs."""
    paths = sorted(path for part in CODE for path in (ROOT / part).rglob("*.py"))
    return digest([[str(path.relative_to(ROOT)), file_sha256(path)] for path in paths])


def package_versions() -> dict[str, str]:
    """Without the local part, such as "+cpu", which is the machine's."""
    return {package: _version(package).partition("+")[0] for package in PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


@dataclass(frozen=True)
class Stage:
    key: str
    path: Path  # of the file that it made
    facts: pb.Model  # what it adds to those of the version


class Stages:
    def __init__(self, folder: Path, *, anew: bool = False) -> None:
        self._folder = folder
        self._anew = anew  # make everything again

    def made(self, key: str, make: Callable[[Path], pb.Model]) -> Stage:
        """What `make` wrote to the path that it is given, and told: now, or when first asked.

        What it raises is raised, and nothing is kept.
        """
        kept = self._folder / key
        if self._anew or not _is_whole(kept):
            self._make(kept, make)
        os.utime(kept)
        facts = pb.Model.FromString((kept / FACTS).read_bytes())
        return Stage(key, kept / FILE, facts)

    def _make(self, kept: Path, make: Callable[[Path], pb.Model]) -> None:
        """Beside, then by one rename: two builds do not mix, a killed one leaves nothing."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=MAKING) as place:
            made = Path(place, "stage")
            made.mkdir()
            facts = make(made / FILE)
            (made / FACTS).write_bytes(facts.SerializeToString(deterministic=True))
            (made / SHA256).write_text(file_sha256(made / FILE))
            try:
                made.rename(kept)
            except OSError:  # it is there: damaged, or of another build that was quicker
                if self._anew or not _is_whole(kept):
                    shutil.rmtree(kept, ignore_errors=True)
                    made.rename(kept)
        self._make_room()

    def _make_room(self) -> None:
        """The oldest leave, and what a build that was killed has left."""
        with contextlib.suppress(FileNotFoundError):  # another build is at it too
            stages = sorted(self._folder.iterdir(), key=_age_s)
            total = 0
            for number, stage in enumerate(stages):
                total += sum(path.stat().st_size for path in stage.rglob("*"))
                is_left = stage.name.startswith(MAKING) and _age_s(stage) > A_DAY_S
                if is_left or (number and total > MAX_CACHE_BYTES):
                    shutil.rmtree(stage, ignore_errors=True)


def _is_whole(kept: Path) -> bool:
    """A file that changed on the disk would be proven against itself, and pass."""
    try:
        return (kept / SHA256).read_text() == file_sha256(kept / FILE)
    except OSError:
        return False


def _age_s(path: Path) -> float:
    return time.time() - path.stat().st_mtime
