"""Components compared with scikit-image, which the server does not depend on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import binary_dilation
from skimage.measure import label, regionprops

from server.preprocessing.connected_components import dilate, find_components


def random_masks() -> list[npt.NDArray[np.bool_]]:
    random = np.random.default_rng(0)
    shapes = [(1, 1), (1, 9), (9, 1), (8, 8), (40, 60), (61, 33)]
    return [random.random(shape) < share for shape in shapes for share in (0, 0.1, 0.4, 0.6, 1)]


@pytest.mark.parametrize("mask", random_masks())
def test_components_equal_those_of_scikit_image(mask: npt.NDArray[np.bool_]) -> None:
    components = find_components(mask)
    expected = label(mask, connectivity=2)  # in the order of their first pixels, as ours
    assert np.array_equal(components.labels + 1, expected)
    properties = regionprops(expected)
    assert components.areas.tolist() == [region.area for region in properties]
    assert components.boxes.tolist() == [list(region.bbox) for region in properties]
    assert components.count == len(properties)


def test_a_spiral_is_one_component() -> None:
    mask = np.zeros((9, 9), dtype=bool)
    mask[0, :] = mask[:, 8] = mask[8, :] = mask[2:, 0] = mask[2, :7] = mask[2:7, 6] = True
    mask[6, 2:7] = True
    assert find_components(mask).count == 1


def test_touching_a_border_is_known_for_each_side() -> None:
    mask = np.zeros((9, 9), dtype=bool)
    mask[0, 4] = mask[4, 0] = mask[4, 8] = mask[8, 4] = mask[4, 4] = True
    components = find_components(mask)
    inner = components.labels[4, 4]
    assert [index for index in range(5) if not components.touches_border[index]] == [inner]
    assert np.argwhere(components.pixels(np.array([inner]))).tolist() == [[4, 4]]


@pytest.mark.parametrize("mask", random_masks())
@pytest.mark.parametrize("by", [1, 3])
def test_dilation_is_that_of_scipy_with_a_square(mask: npt.NDArray[np.bool_], by: int) -> None:
    side = 2 * by + 1
    assert np.array_equal(dilate(mask, by), binary_dilation(mask, np.ones((side, side))))
