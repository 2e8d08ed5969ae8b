"""The published transform, against its table of sizes and an independent reference."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from convoy.v1 import classifier_pb2 as pb
from server.errors import ServingError
from server.preprocessing import prepare
from server.preprocessing.photo import centre_offset, prepare_photo, resized_size

CHINA = Image.fromarray(load_sample_image("china.jpg"))  # 640×427


@pytest.mark.parametrize(
    ("size", "resize", "crop", "resized", "offsets"),
    [
        ((500, 375), 256, 224, (341, 256), (58, 16)),
        ((640, 480), 256, 224, (341, 256), (58, 16)),
        ((333, 512), 256, 224, (256, 393), (16, 84)),
        ((1023, 641), 256, 224, (408, 256), (92, 16)),
        ((97, 211), 256, 224, (256, 556), (16, 166)),
        ((500, 375), 232, 224, (309, 232), (42, 4)),
        ((333, 512), 232, 224, (232, 356), (4, 66)),
        ((1023, 641), 232, 224, (370, 232), (73, 4)),
        ((97, 211), 232, 224, (232, 504), (4, 140)),
        ((500, 375), 342, 299, (456, 342), (78, 22)),
        ((333, 512), 342, 299, (342, 525), (22, 113)),
        ((1023, 641), 342, 299, (545, 342), (123, 22)),
        ((97, 211), 342, 299, (342, 743), (22, 222)),
    ],
)
def test_sizes_and_offsets_are_the_published_ones(
    size: tuple[int, int],
    resize: int,
    crop: int,
    resized: tuple[int, int],
    offsets: tuple[int, int],
) -> None:
    assert resized_size(size, resize) == resized
    assert tuple(centre_offset(side, crop) for side in resized) == offsets


def triangle(samples: int, target: int) -> npt.NDArray[np.float64]:
    """The matrix target×samples of an antialiased bilinear resize: triangles around centres."""
    scale = samples / target
    reach = max(scale, 1.0)
    centres = (np.arange(target) + 0.5) * scale
    distances = np.abs(np.arange(samples) + 0.5 - centres[:, np.newaxis]) / reach
    weights = np.clip(1 - distances, 0, None)
    normalised: npt.NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return normalised


def reference(pixels: npt.NDArray[np.uint8], resize: int, crop: int) -> npt.NDArray[np.float64]:
    """Resize, then crop, by the definition; rounded between the two passes, as 8 bits are."""
    height, width, _ = pixels.shape
    shorter = min(height, width)
    rows, columns = (int(resize * side / shorter) for side in (height, width))
    across = np.floor(
        0.5 + np.einsum("xw,hwc->hxc", triangle(width, columns), pixels, optimize=True)
    )
    resized = np.floor(
        0.5 + np.einsum("yh,hxc->yxc", triangle(height, rows), across, optimize=True)
    )
    top, left = round((rows - crop) / 2), round((columns - crop) / 2)
    cut: npt.NDArray[np.float64] = resized[top : top + crop, left : left + crop]
    return cut


@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (232, 224), (342, 299)])
@pytest.mark.parametrize("size", [(640, 427), (333, 512), (97, 211), (1023, 641)])
def test_pixels_equal_an_independent_reference(
    size: tuple[int, int], resize: int, crop: int
) -> None:
    image = CHINA.resize(size)
    prepared = prepare_photo(image, pb.Photo(resize=resize, crop=crop))
    assert prepared.shape == (crop, crop, 3)
    assert prepared.dtype == np.uint8
    difference = np.abs(prepared - reference(np.asarray(image), resize, crop))
    # Pillow's weights are integers: now and then a value that lies between two falls to the other.
    assert difference.max() <= 1
    assert difference.mean() < 0.02


def test_pixels_equal_pillows_resize_then_crop_exactly() -> None:
    prepared = prepare_photo(CHINA, pb.Photo(resize=256, crop=224))
    whole = CHINA.resize((383, 256), Image.Resampling.BILINEAR)
    left, top = 80, 16  # 79.5 goes to the even pixel
    assert np.array_equal(prepared, np.asarray(whole)[top : top + 224, left : left + 224])


def test_a_picture_of_the_right_size_is_only_cropped() -> None:
    image = CHINA.resize((300, 256))
    prepared = prepare_photo(image, pb.Photo(resize=256, crop=224))
    assert np.array_equal(prepared, np.asarray(image)[16:240, 38:262])


def test_grey_becomes_three_equal_channels() -> None:
    grey = CHINA.convert("L")
    prepared = prepare_photo(grey, pb.Photo(resize=256, crop=224))
    in_colour = prepare_photo(grey.convert("RGB"), pb.Photo(resize=256, crop=224))
    assert np.array_equal(prepared, in_colour)


@pytest.mark.parametrize("size", [(20, 400), (400, 20), (40, 1000)])
def test_an_elongated_picture_gives_the_pixels_of_the_whole(size: tuple[int, int]) -> None:
    image = CHINA.resize(size)
    prepared = prepare_photo(image, pb.Photo(resize=256, crop=224)).astype(int)
    whole = image.resize(resized_size(size, 256), Image.Resampling.BILINEAR)
    left, top = (centre_offset(side, 224) for side in whole.size)
    expected = np.asarray(whole)[top : top + 224, left : left + 224]
    assert np.abs(prepared - expected).max() <= 2


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1_000_000), (1, 1)])
def test_a_very_elongated_picture_is_answered(size: tuple[int, int]) -> None:
    # The whole of 1×1,000,000, resized, would take 467 GB.
    image = Image.new("RGB", size, (10, 200, 30))
    prepared = prepare_photo(image, pb.Photo(resize=342, crop=299))
    assert prepared.shape == (299, 299, 3)
    assert (prepared == (10, 200, 30)).all()


def test_preprocessing_is_chosen_by_the_models_facts() -> None:
    photo = prepare(CHINA, pb.Preprocessing(photo=pb.Photo(resize=256, crop=224)))
    assert photo.shape == (224, 224, 3)


def test_a_kind_of_a_newer_contract_is_a_named_error() -> None:
    with pytest.raises(ServingError, match="no preprocessing that this gateway knows"):
        prepare(CHINA, pb.Preprocessing())
