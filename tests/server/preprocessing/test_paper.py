"""Counts of grey levels compared with numpy and scikit-image, which sort or search instead."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from skimage.filters import threshold_otsu

from server.preprocessing.paper import cumulate, noise_of, otsu, percentile, readings


def greys(seed: int) -> npt.NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    paper, ink = random.normal(200, 10, 900), random.normal(60, 15, 100)
    return np.concatenate([paper, ink]).clip(0, 255).astype(np.uint8).reshape(25, 40)


@pytest.mark.parametrize("percent", [2, 50, 98])
@pytest.mark.parametrize("seed", range(3))
def test_percentile_is_the_level_that_sorting_gives(seed: int, percent: float) -> None:
    levels = greys(seed)
    expected = np.percentile(levels, percent, method="inverted_cdf")
    assert percentile(cumulate(levels), percent) == expected


@pytest.mark.parametrize("seed", range(3))
def test_threshold_is_that_of_otsu(seed: int) -> None:
    levels = greys(seed)
    threshold = otsu(cumulate(levels))
    assert np.array_equal(levels > threshold, levels > threshold_otsu(levels, nbins=256))


def test_distances_above_255_count_as_255() -> None:
    assert cumulate(np.array([0.0, 3.9, 255.0, 300.0]))[[0, 2, 3, 254, 255]].tolist() == [
        1, 1, 2, 2, 4,
    ]  # fmt: skip


def test_noise_is_its_standard_deviation() -> None:
    random = np.random.default_rng(0)
    shade = np.linspace(60, 200, 300)  # light from one side is no noise
    sheet = (shade + random.normal(0, 8, (300, 300))).clip(0, 255).astype(np.uint8)
    assert noise_of(sheet) == pytest.approx(8, abs=0.6)
    assert noise_of(np.full((9, 9), 40, np.uint8)) == 1


def test_light_that_falls_from_one_side_leaves_the_paper_at_0() -> None:
    y, x = np.mgrid[-1:1:100j, -1:1:128j]
    sheet = 150 - 40 * x - 20 * y
    sheet[40:60, 50:60] -= 90
    (ink,) = list(readings(sheet.astype(np.uint8), 1.0))
    assert (ink.sign, ink.marks.count) == (-1, 1)
    assert ink.marks.boxes.tolist() == [[40, 50, 60, 60]]
    assert np.abs(ink.sheet[ink.marks.labels < 0]).max() <= 2
    assert ink.level == pytest.approx(90, abs=2)
