"""How the folders of a model repository are named."""

from __future__ import annotations

import os
import re
from pathlib import Path

# NAME.vN is served. The folders of builds and of withdrawn versions have a suffix: no match.
FOLDER_NAME = re.compile(r"(?P<model>[a-z0-9][a-z0-9_-]*)\.v(?P<version>[1-9][0-9]*)")
STAGING_SUFFIX = ".staging"
# What builds and commands leave behind: versions in every state, locks, the highest number.
TRACE = re.compile(r"\.?[a-z0-9][a-z0-9_-]*\.(v[1-9][0-9]*(\.[a-z]+)?|lock|highest)")
MAX_VERSION_DIGITS = 18  # Python refuses to read thousands


def parse_version(text: str) -> int | None:
    """The number of a version; None if the text is none."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= MAX_VERSION_DIGITS
    return int(text) if is_number else None


def is_utf8(path: Path) -> bool:
    """Whether ONNX Runtime and Triton can open the path: they take no other bytes."""
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError:
        return False
    return True
