"""Where files are kept, and what a file is known by."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from export.errors import ExportError

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


def read_text(path: Path, max_bytes: int, error: type[ExportError], remedy: str) -> str:
    """A file that a user names: UTF-8, with or without a byte order mark.

    Raises:
        ExportError: of this type: it cannot be read, is longer, or is no such text; with the
            remedy.
    """
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
        if len(content) <= max_bytes:
            return content.decode("utf-8-sig")
        reason = f"has more than {max_bytes >> 20} MiB"
    except OSError as fault:
        reason = f"cannot be read ({fault.strerror})"
    except UnicodeDecodeError:
        reason = "is no UTF-8 text"
    raise error(f"{path} {reason}: {remedy}.")
