"""The published transform, against its table of sizes and an independent reference; and the others,
against the library that does each.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image

from convoy.v1 import classifier_pb2 as pb
from server.errors import ServingError
from server.preprocessing import detail, prepare, resizing
from server.preprocessing.decode import decode
from server.preprocessing.photo import centre_offset, crop_box, prepare_photo, resized_size
from server.preprocessing.sampling import resize_by_area

CHINA = Image.fromarray(load_sample_image("china.jpg"))  # 640×427
FLOWER = Image.fromarray(load_sample_image("flower.jpg"))  # as large


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
    assert resized_size(size, pb.Photo(resize=resize, crop=crop)) == resized
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
    down = np.floor(0.5 + np.einsum("yh,hwc->ywc", triangle(height, rows), pixels, optimize=True))
    resized = np.floor(
        0.5 + np.einsum("xw,ywc->yxc", triangle(width, columns), down, optimize=True)
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
    # Weights are integers: now and then a value that lies between two falls to the other. Pillow
    # takes the two passes in the other order, and rounds between them.
    assert difference.max() <= 1
    assert difference.mean() < (0.02 if resizing.HAS_SIMD else 0.3)


def largest_difference(a: npt.NDArray[np.uint8], b: Image.Image | npt.NDArray[np.uint8]) -> int:
    """The largest, in grey levels."""
    assert a.shape == np.asarray(b).shape
    return int(np.abs(a.astype(int) - np.asarray(b)).max())


@pytest.mark.parametrize("has_simd", [True, False])
def test_pixels_are_those_of_pillows_resize_then_crop(
    has_simd: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resizing, "HAS_SIMD", has_simd)  # False on ARM
    prepared = prepare_photo(CHINA, pb.Photo(resize=256, crop=224))
    whole = CHINA.resize((383, 256), Image.Resampling.BILINEAR)
    left, top = 80, 16  # 79.5 goes to the even pixel
    assert largest_difference(prepared, whole.crop((left, top, left + 224, top + 224))) <= 1


def test_a_picture_of_the_right_size_is_only_cropped() -> None:
    image = CHINA.resize((300, 256))
    prepared = prepare_photo(image, pb.Photo(resize=256, crop=224))
    assert np.array_equal(prepared, np.asarray(image)[16:240, 38:262])


def test_grey_becomes_three_equal_channels() -> None:
    grey = CHINA.convert("L")
    prepared = prepare_photo(grey, pb.Photo(resize=256, crop=224))
    in_colour = prepare_photo(grey.convert("RGB"), pb.Photo(resize=256, crop=224))
    assert np.array_equal(prepared, in_colour)


def test_four_bytes_per_pixel_give_the_pixels_of_three() -> None:
    photo = pb.Photo(resize=256, crop=224)
    four = Image.frombytes("RGBX", CHINA.size, CHINA.convert("RGBA").tobytes())
    assert np.array_equal(prepare_photo(four, photo), prepare_photo(CHINA, photo))


@pytest.mark.parametrize("size", [(1600, 1200), (1201, 2049), (4001, 3003)])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"resize_mode": pb.SQUASH},
        {"resize_mode": pb.PAD},
        {"interpolation": pb.BICUBIC},
    ],
    ids=str,
)
def test_a_large_photo_decoded_smaller_gives_nearly_the_pixels_of_the_whole(
    size: tuple[int, int], how: dict[str, Any]
) -> None:
    content = large_photo(size)
    preprocessing = pb.Preprocessing(photo=pb.Photo(resize=256, crop=224, **how))
    prepared = [
        prepare(image.pixels, preprocessing, (image.width, image.height)).astype(float)
        for is_exact in (True, False)
        for image in [
            decode(
                content,
                max_bytes=1 << 25,
                max_pixels=1 << 25,
                detail=detail(preprocessing, is_exact=is_exact),
            )
        ]
    ]
    noise = np.mean((prepared[0] - prepared[1]) ** 2)
    assert noise > 0  # fewer pixels were decoded
    assert 10 * np.log10(255**2 / noise) >= 49  # dB, the PSNR


@functools.cache
def large_photo(size: tuple[int, int]) -> bytes:
    """Photographs beside one another, a bit enlarged: cameras' pixels are not as sharp as those of
    pictures that were made smaller, of which 48 dB remain."""
    tiles = [each.resize((960, 640), Image.Resampling.BICUBIC) for each in (CHINA, FLOWER)]
    whole = Image.new("RGB", size)
    for column, row in itertools.product(range(-(-size[0] // 960)), range(-(-size[1] // 640))):
        whole.paste(tiles[(column + row) % 2], (960 * column, 640 * row))
    content = io.BytesIO()
    whole.save(content, "JPEG", quality=90)
    return content.getvalue()


@pytest.mark.parametrize(
    "how",
    [
        {"interpolation": pb.NEAREST},
        {"interpolation": pb.AREA},
        {"interpolation": pb.BICUBIC, "antialias": False},
    ],
)
def test_where_each_pixel_counts_a_photo_is_decoded_whole(how: dict[str, Any]) -> None:
    photo = pb.Preprocessing(photo=pb.Photo(resize=256, crop=224, **how))
    assert detail(photo, is_exact=False) is None


@pytest.mark.parametrize("size", [(20, 400), (400, 20), (40, 1000)])
def test_an_elongated_picture_gives_the_pixels_of_the_whole(size: tuple[int, int]) -> None:
    image = CHINA.resize(size)
    prepared = prepare_photo(image, pb.Photo(resize=256, crop=224)).astype(int)
    whole = image.resize(resized_size(size, pb.Photo(resize=256)), Image.Resampling.BILINEAR)
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


# ---------------------------------------------------------------- as Pillow does

FILTERS = {
    pb.BILINEAR: Image.Resampling.BILINEAR,
    pb.BICUBIC: Image.Resampling.BICUBIC,
    pb.NEAREST: Image.Resampling.NEAREST,
    pb.BOX: Image.Resampling.BOX,
    pb.LANCZOS: Image.Resampling.LANCZOS,
}


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("resize", [48, 700])  # reduced and enlarged
def test_each_filter_gives_pillows_pixels(interpolation: pb.Interpolation, resize: int) -> None:
    photo = pb.Photo(resize=resize, crop=40, interpolation=interpolation, antialias=True)
    whole = CHINA.resize(resized_size(CHINA.size, photo), FILTERS[interpolation])
    left, top = (round((side - 40) / 2) for side in whole.size)
    expected = np.asarray(whole)[top : top + 40, left : left + 40]
    most = 1 if interpolation == pb.BILINEAR else 0
    assert largest_difference(prepare_photo(CHINA, photo), expected) <= most


@pytest.mark.parametrize("size", [(640, 427), (101, 333), (30, 20)])
def test_squash_makes_both_sides_of_one_length(size: tuple[int, int]) -> None:
    image = CHINA.resize(size)
    photo = pb.Photo(resize=64, crop=56, resize_mode=pb.SQUASH, interpolation=pb.BICUBIC)
    expected = np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC))[4:60, 4:60]
    assert np.array_equal(prepare_photo(image, photo), expected)


@pytest.mark.parametrize("size", [(640, 427), (103, 330), (30, 20), (50, 50)])
def test_pad_gives_pillows_letterbox(size: tuple[int, int]) -> None:
    image = CHINA.resize(size)
    photo = pb.Photo(resize=63, crop=63, resize_mode=pb.PAD, fill=(124, 116, 104))
    inner = ImageOps.contain(image, (63, 63), Image.Resampling.BILINEAR)
    expected = Image.new("RGB", (63, 63), (124, 116, 104))
    expected.paste(inner, ((63 - inner.width) // 2, (63 - inner.height) // 2))
    assert largest_difference(prepare_photo(image, photo), expected) <= 1


def test_pad_is_black_unless_told_otherwise_and_crops_what_is_too_long() -> None:
    photo = pb.Photo(resize=64, crop=56, resize_mode=pb.PAD)
    prepared = prepare_photo(Image.new("RGB", (640, 320), "white"), photo)
    assert (prepared[12:44] == 255).all()  # 64×32, of which 4 columns are cut off on either side
    assert not prepared[:12].any()
    assert not prepared[44:].any()


def test_the_box_of_a_padded_picture_reaches_beyond_it() -> None:
    photo = pb.Photo(resize=64, crop=64, resize_mode=pb.PAD)
    assert crop_box((640, 320), photo) == (0, -160, 640, 480)
    assert crop_box((100, 200), pb.Photo(resize=50, crop=40, resize_mode=pb.SQUASH)) == (
        10,
        20,
        90,
        180,
    )


# ---------------------------------------------------------------- as torch does, without a filter

MODES = {pb.BILINEAR: "bilinear", pb.BICUBIC: "bicubic", pb.NEAREST: "nearest"}


@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize("size", [(640, 427), (101, 333), (30, 20)])
def test_without_antialiasing_the_pixels_are_torchs(
    interpolation: pb.Interpolation, size: tuple[int, int]
) -> None:
    image = CHINA.resize(size)
    photo = pb.Photo(resize=70, crop=64, interpolation=interpolation, antialias=False)
    width, height = resized_size(size, photo)
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float()
    centred = {} if interpolation == pb.NEAREST else {"align_corners": False}
    resized = torch.nn.functional.interpolate(
        pixels, size=(height, width), mode=MODES[interpolation], **centred
    )
    left, top = (round((side - 64) / 2) for side in (width, height))
    cut = resized[0, :, top : top + 64, left : left + 64].round().clamp(0, 255)
    _assert_equal_but_for_ties(prepare_photo(image, photo), cut.permute(1, 2, 0).numpy())


def _assert_equal_but_for_ties(
    prepared: npt.NDArray[np.uint8], expected: npt.NDArray[np.float32]
) -> None:
    """Sums of float32 in another order: where they lie half-way, the last bit decides."""
    difference = np.abs(prepared - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.005


# ---------------------------------------------------------------- by area, as OpenCV does


def coverage(samples: int, target: int) -> npt.NDArray[np.float64]:
    """The matrix target×samples of the share of each sample in each pixel of the result."""
    edges = np.linspace(0, samples, target + 1)
    starts, ends = edges[:-1, np.newaxis], edges[1:, np.newaxis]
    covered = np.minimum(np.arange(samples) + 1, ends) - np.maximum(np.arange(samples), starts)
    shares: npt.NDArray[np.float64] = np.clip(covered, 0, None) * target / samples
    return shares


@pytest.mark.parametrize("size", [(640, 427), (101, 333), (128, 128)])
def test_by_area_each_pixel_is_the_mean_of_what_it_covers(size: tuple[int, int]) -> None:
    image = CHINA.resize(size)
    photo = pb.Photo(resize=64, crop=60, interpolation=pb.AREA)
    width, height = resized_size(size, photo)
    x, y = coverage(size[0], width), coverage(size[1], height)
    resized = np.einsum("yh,xw,hwc->yxc", y, x, np.asarray(image), optimize=True)
    left, top = (round((side - 60) / 2) for side in (width, height))
    expected = np.rint(resized[top : top + 60, left : left + 60]).astype(np.float32)
    _assert_equal_but_for_ties(prepare_photo(image, photo), expected)


# cv2.resize(source, (width, height), interpolation=cv2.INTER_AREA) of OpenCV 5.0.0, where `source`
# is the 5×7 table of squares modulo 251 below.
OPENCV = {
    (3, 2): [[73, 83, 78], [120, 94, 96]],
    (7, 3): [
        [37, 83, 43, 117, 105, 107, 72],
        [104, 106, 72, 52, 46, 54, 76],
        [160, 118, 91, 127, 127, 141, 69],
    ],
    (10, 8): [
        [0, 4, 10, 28, 53, 77, 112, 166, 100, 1],
        [37, 63, 77, 43, 96, 113, 105, 106, 92, 72],
        [92, 152, 178, 65, 160, 168, 94, 17, 79, 179],
        [112, 102, 87, 41, 49, 44, 26, 16, 37, 67],
        [109, 92, 78, 66, 30, 19, 29, 52, 53, 48],
        [75, 104, 134, 189, 65, 42, 108, 199, 158, 83],
        [160, 136, 114, 91, 116, 127, 127, 139, 110, 69],
        [217, 158, 101, 25, 151, 184, 140, 100, 79, 60],
    ],
    (5, 9): [
        [2, 19, 58, 139, 51],
        [26, 39, 82, 122, 66],
        [122, 122, 179, 55, 129],
        [114, 93, 114, 38, 90],
        [103, 50, 18, 12, 33],
        [95, 117, 31, 97, 85],
        [89, 162, 41, 153, 120],
        [168, 83, 149, 126, 80],
        [188, 63, 176, 120, 69],
    ],
}


@pytest.mark.parametrize("size", OPENCV)
def test_by_area_the_pixels_are_opencvs(size: tuple[int, int]) -> None:
    source = (np.arange(35) ** 2 * 7 % 251).astype(np.uint8).reshape(5, 7)
    resized = resize_by_area(Image.fromarray(source), size, (0, 0, *size))
    # OpenCV enlarges with weights of 11 bits.
    tolerance = 1 if size[0] > 7 or size[1] > 5 else 0
    assert np.abs(np.asarray(resized)[:, :, 0] - np.array(OPENCV[size])).max() <= tolerance


# ---------------------------------------------------------------- pictures that cost much


@contextlib.contextmanager
def at_most_more_memory(n_bytes: int) -> Iterator[None]:
    """Limits what the process may take on top of what it has; beyond, there is a MemoryError."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


EXTREMES: list[dict[str, Any]] = [
    {"resize_mode": pb.SQUASH},
    {"resize_mode": pb.SQUASH, "interpolation": pb.LANCZOS},
    {"resize_mode": pb.SQUASH, "interpolation": pb.AREA},
    {"resize_mode": pb.SQUASH, "antialias": False},
    {"resize_mode": pb.PAD},
    {"resize_mode": pb.PAD, "interpolation": pb.AREA},
    {"interpolation": pb.BICUBIC},
    {"interpolation": pb.AREA},
    {"interpolation": pb.BICUBIC, "antialias": False},
]


@pytest.mark.parametrize("size", [(1, 8_000_000), (8_000_000, 1)])
@pytest.mark.parametrize("how", EXTREMES)
def test_an_extreme_picture_takes_no_extreme_memory(
    size: tuple[int, int], how: dict[str, Any]
) -> None:
    # The weights of a filter from 8,000,000 pixels to 299 would take 128 MB, or more.
    image = Image.new("RGB", size, (10, 200, 30))
    with at_most_more_memory(100 << 20):
        prepared = prepare_photo(image, pb.Photo(resize=299, crop=299, **how))
    assert (prepared[:, 149] == (10, 200, 30)).all() or (prepared[149] == (10, 200, 30)).all()


@pytest.mark.parametrize("size", [(20, 400), (400, 20), (40, 1000)])
@pytest.mark.parametrize("mode", [pb.SQUASH, pb.PAD])
def test_an_elongated_picture_differs_little_from_the_whole(
    size: tuple[int, int], mode: pb.ResizeMode
) -> None:
    image = CHINA.resize(size)
    photo = pb.Photo(resize=64, crop=64, resize_mode=mode)
    prepared = Image.fromarray(prepare_photo(image, photo))
    whole = image.resize(resized_size(size, photo), Image.Resampling.BILINEAR)
    left, top = ((64 - side) // 2 for side in whole.size)
    shown = prepared.crop((left, top, left + whole.width, top + whole.height))
    assert np.abs(np.asarray(shown).astype(int) - np.asarray(whole)).max() <= 6
