"""The stages of earlier builds, found by the hash of everything that went in.

A stage makes one file and some facts about it. Both are kept in the cache (~/.cache/convoy/stages,
or in XDG_CACHE_HOME), so that an interrupted build continues where it was, and a build that differs
in its last step repeats that step alone. When the cache is full, the least recently used stages are
deleted. The key has all that a stage depends on, the project's code included, so nothing in the
cache is ever out of date.
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
from export.files import ROOT, file_sha256

# Preprocessing and the private gateway are part of the proof.
CODE = ("export", "server", "clients/python/convoy")
# The packages that shape a version, for its manifest.
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")
FILE, FACTS, SHA256 = "file", "facts.binpb", "sha256"
MAX_CACHE_BYTES = 8_000_000_000
A_DAY_S = 86_400.0
TEMPORARY = "making-"


def digest(*parts: Any) -> str:
    """sha256 of anything that JSON can express, in hexadecimal."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@cache
def code_sha256() -> str:
    """Hash of all of the project's own code that a build runs."""
    paths = sorted(path for part in CODE for path in (ROOT / part).rglob("*.py"))
    return digest([[str(path.relative_to(ROOT)), file_sha256(path)] for path in paths])


def package_versions() -> dict[str, str]:
    """Installed versions, without the local part, such as "+cpu", which depends on the machine."""
    return {package: _version(package).partition("+")[0] for package in PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


@dataclass(frozen=True)
class Stage:
    key: str
    path: Path  # its file
    facts: pb.Model  # what it adds to the facts of the version


class Stages:
    """The cache in `folder`; with `rebuild`, its entries are made again."""

    def __init__(self, folder: Path, *, rebuild: bool = False) -> None:
        self._folder = folder
        self._rebuild = rebuild

    def get_or_make(self, key: str, make: Callable[[Path], pb.Model]) -> Stage:
        """The stage of this key; `make` writes its file to the path it is given, returns its facts.

        What it raises is raised, and nothing is kept.
        """
        entry = self._folder / key
        if self._rebuild or not _is_intact(entry):
            self._make(entry, make)
        os.utime(entry)
        facts = pb.Model.FromString((entry / FACTS).read_bytes())
        return Stage(key, entry / FILE, facts)

    def _make(self, entry: Path, make: Callable[[Path], pb.Model]) -> None:
        """In a temporary folder, then renames it: builds do not mix, a killed one leaves none."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=TEMPORARY) as temporary:
            stage = Path(temporary, "stage")
            stage.mkdir()
            facts = make(stage / FILE)
            (stage / FACTS).write_bytes(facts.SerializeToString(deterministic=True))
            (stage / SHA256).write_text(file_sha256(stage / FILE))
            try:
                stage.rename(entry)
            except OSError:  # the entry exists: damaged, or of another build that was quicker
                if self._rebuild or not _is_intact(entry):
                    shutil.rmtree(entry, ignore_errors=True)
                    stage.rename(entry)
        self._evict()

    def _evict(self) -> None:
        """Deletes the oldest entries, and what killed builds have left."""
        with contextlib.suppress(FileNotFoundError):  # another build evicts too
            entries = sorted(self._folder.iterdir(), key=_age_s)
            total = 0
            for number, entry in enumerate(entries):
                total += sum(path.stat().st_size for path in entry.rglob("*"))
                is_abandoned = entry.name.startswith(TEMPORARY) and _age_s(entry) > A_DAY_S
                if is_abandoned or (number and total > MAX_CACHE_BYTES):
                    shutil.rmtree(entry, ignore_errors=True)


def _is_intact(entry: Path) -> bool:
    """Else a file that changed on the disk would be compared with itself, and pass."""
    try:
        return (entry / SHA256).read_text() == file_sha256(entry / FILE)
    except OSError:
        return False


def _age_s(path: Path) -> float:
    return time.time() - path.stat().st_mtime
