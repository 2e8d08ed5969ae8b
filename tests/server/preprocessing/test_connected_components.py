"""Marks against scikit-image, which the server does without."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import binary_dilation
from skimage.measure import label, regionprops

from server.preprocessing.connected_components import find_marks, grown


def random_masks() -> list[npt.NDArray[np.bool_]]:
    random = np.random.default_rng(0)
    shapes = [(1, 1), (1, 9), (9, 1), (8, 8), (40, 60), (61, 33)]
    return [random.random(shape) < share for shape in shapes for share in (0, 0.1, 0.4, 0.6, 1)]


@pytest.mark.parametrize("mask", random_masks())
def test_marks_are_those_of_scikit_image(mask: npt.NDArray[np.bool_]) -> None:
    marks = find_marks(mask)
    numbers = label(mask, connectivity=2)  # in the order of their first pixels, as ours
    assert np.array_equal(marks.numbers + 1, numbers)
    properties = regionprops(numbers)
    assert marks.areas.tolist() == [each.area for each in properties]
    assert marks.boxes.tolist() == [list(each.bbox) for each in properties]
    assert marks.count == len(properties)


def test_a_spiral_is_one_mark() -> None:
    mask = np.zeros((9, 9), dtype=bool)
    mask[0, :] = mask[:, 8] = mask[8, :] = mask[2:, 0] = mask[2, :7] = mask[2:7, 6] = True
    mask[6, 2:7] = True
    assert find_marks(mask).count == 1


def test_touching_a_border_is_known_for_each_side() -> None:
    mask = np.zeros((9, 9), dtype=bool)
    mask[0, 4] = mask[4, 0] = mask[4, 8] = mask[8, 4] = mask[4, 4] = True
    marks = find_marks(mask)
    inner = marks.numbers[4, 4]
    assert [index for index in range(5) if not marks.touches_border[index]] == [inner]
    assert np.argwhere(marks.pixels(np.array([inner]))).tolist() == [[4, 4]]


@pytest.mark.parametrize("mask", random_masks())
@pytest.mark.parametrize("by", [1, 3])
def test_grown_is_a_square_dilation(mask: npt.NDArray[np.bool_], by: int) -> None:
    side = 2 * by + 1
    assert np.array_equal(grown(mask, by), binary_dilation(mask, np.ones((side, side))))
