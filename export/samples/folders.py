"""Folders with pictures of a user's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def list_pictures(folder: Path) -> dict[str, Path]:
    """The pictures of a folder and its subfolders, by relative path, sorted."""
    pictures = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    }
    return {name: pictures[name] for name in sorted(pictures)}


def spread(pictures: Mapping[str, Path], most: int) -> dict[str, Path]:
    """At most so many of them, evenly: data sets are sorted by class, and each class must count."""
    names = list(pictures)
    count = min(len(names), most)
    return {name: pictures[name] for name in (names[n * len(names) // count] for n in range(count))}
