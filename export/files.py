"""Where files are kept, and what a file is known by."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # of the checkout, or where the packages are installed
TRAINED_WEIGHTS = ROOT / "export" / "weights"  # written by export/train.py, and shipped


def cache_path() -> Path:
    """~/.cache/convoy, or in XDG_CACHE_HOME, as the XDG base directory specification says."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convoy"


def shown_name(path: Path) -> str:
    """The file's name as a manifest can hold it: what is no UTF-8 is replaced."""
    return os.fsencode(path.name).decode(errors="replace")


def file_sha256(path: Path) -> str:
    """In hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
