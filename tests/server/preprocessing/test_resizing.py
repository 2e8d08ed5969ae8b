"""What resizes photos and digits, against Pillow."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convoy.v1 import classifier_pb2 as pb
from server.preprocessing import resizing
from server.preprocessing.digit import prepare_digit
from server.preprocessing.resizing import BICUBIC, BILINEAR, resize

needs_simd = pytest.mark.skipif(
    not resizing.HAS_SIMD, reason="cykooz-resizer has no wheel for this machine"
)
SIZES = [(57, 91), (5, 91), (20, 20), (1, 40), (13, 3)]  # of marks: width, height


@needs_simd
@pytest.mark.parametrize("resampling", [BILINEAR, BICUBIC])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_floats_are_resized_as_by_pillow(
    size: tuple[int, int], resampling: Image.Resampling
) -> None:
    mark = Image.fromarray(np.random.default_rng(0).random(size[::-1], np.float32))
    smaller = max(1, size[0] // 3), max(1, size[1] // 3)
    resized = np.asarray(resize(mark, smaller, resampling))
    assert np.abs(resized - np.asarray(mark.resize(smaller, resampling))).max() < 1e-6
    assert np.abs(resized).max() > 0.1


@needs_simd
def test_a_digit_is_the_same_to_a_grey_level_where_simd_is_missing(
    drawn: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = pb.Digit(size=28, box=20)
    prepared = prepare_digit(drawn, facts).astype(int)
    monkeypatch.setattr(resizing, "HAS_SIMD", False)
    assert np.abs(prepare_digit(drawn, facts) - prepared).max() <= 1


@needs_simd
def test_pictures_and_marks_are_resized_by_the_same_library(
    drawn: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Image.Image:
        raise AssertionError("resized by SIMD")

    monkeypatch.setattr(resizing, "_by_simd", fail)
    with pytest.raises(AssertionError, match="by SIMD"):
        prepare_digit(drawn, pb.Digit(size=28, box=20))
    with pytest.raises(AssertionError, match="by SIMD"):
        resize(drawn, (20, 20), BILINEAR)
    resize(drawn, (20, 20), BICUBIC)  # Pillow clips between the axes, and SIMD differently


def test_nothing_else_that_prepares_pictures_resizes_them() -> None:
    folder = Path(resizing.__file__).parent
    callers = {
        path.name for path in folder.glob("*.py") if re.search(r"\.resize\(", path.read_text())
    }
    assert callers == {"resizing.py"}


@pytest.fixture
def drawn() -> Image.Image:
    """A dark, slanted seven on light paper, of 8 bits."""
    sheet = np.full((120, 120), 230, np.uint8)
    sheet[30:36, 40:80] = 20
    for row in range(36, 95):
        left = 74 - (row - 36) // 2
        sheet[row, left : left + 6] = 20
    return Image.fromarray(sheet)
