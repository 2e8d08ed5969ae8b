"""PNGs of any size, with their metadata anywhere."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from server.preprocessing.decode import decode
from tests.server.preprocessing.zoo import chunk

PHOTO = Image.fromarray(load_sample_image("china.jpg")).resize((321, 214))


def saved(image: Image.Image, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG", **options)
    return content.getvalue()


def pixels_of(content: bytes) -> Image.Image:
    return decode(content, max_bytes=1 << 24, max_pixels=1 << 24).pixels


def test_whole_files_of_any_size_are_read() -> None:
    """What inflates to a multiple of a buffer, or beyond the last byte of its file, among them."""
    random = np.random.default_rng(0)
    for width, height, level in random.integers(1, (300, 300, 10), (300, 3)):
        steps = random.integers(1, 256)  # few make long repetitions
        noise = (random.integers(0, 256, (height, width)) // steps * steps).astype(np.uint8)
        content = saved(Image.fromarray(noise), compress_level=int(level))
        assert (np.asarray(pixels_of(content)) == noise).all()


@pytest.mark.parametrize("after_pixels", [False, True])
def test_metadata_before_and_after_the_pixels_turns_them_upright(after_pixels: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 270 degrees
    metadata = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    content = saved(PHOTO)
    place = content.index(b"IEND" if after_pixels else b"IDAT") - 4
    turned = pixels_of(content[:place] + metadata + content[place:])
    assert turned.tobytes() == PHOTO.transpose(Image.Transpose.ROTATE_270).tobytes()
