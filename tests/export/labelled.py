"""Labelled pictures for tests: held-out digits of scikit-learn, drawn on a page."""

from __future__ import annotations

from pathlib import Path

from export.proof.golden import draw_page
from export.samples.images import digits


def write_digits(folder: Path, count: int) -> list[tuple[str, str]]:
    """Writes a folder per label; returns the pictures' paths below it with their labels, sorted."""
    drawn = digits(count, seed=7)
    written = []
    for number, (name, plane) in enumerate(zip(drawn.names, drawn.pixels, strict=True)):
        label = name[-1]
        path = folder / label / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw_page(plane))
        written.append((path.relative_to(folder).as_posix(), label))
    return sorted(written)
