"""The kinds of PNG that Pillow does not decode here, against Pillow."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from sklearn.datasets import load_sample_image

from server.preprocessing.decode import decode
from server.preprocessing.png import SIGNATURE, read_png
from tests.server.preprocessing.zoo import chunk, png

PHOTO = Image.fromarray(load_sample_image("china.jpg")).resize((321, 214))


def saved(image: Image.Image, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG", **options)
    return content.getvalue()


def pixels_of(content: bytes) -> Image.Image:
    return decode(content, max_bytes=1 << 24, max_pixels=1 << 24).pixels


@pytest.fixture
def without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise AssertionError("loaded by Pillow")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.usefixtures("without_pillow")
def test_the_usual_kinds_have_their_pixels_without_pillow(mode: str, level: int) -> None:
    image = PHOTO.convert(mode)
    pixels = pixels_of(saved(image, compress_level=level))
    assert (pixels.mode, pixels.size) == (mode, image.size)
    assert pixels.tobytes() == image.tobytes()


def test_whole_files_of_any_size_are_read() -> None:
    """What inflates to a multiple of a buffer, or beyond the last byte of its file, among them."""
    random = np.random.default_rng(0)
    for width, height, level in random.integers(1, (300, 300, 10), (300, 3)):
        steps = random.integers(1, 256)  # few make long repetitions
        noise = (random.integers(0, 256, (height, width)) // steps * steps).astype(np.uint8)
        content = saved(Image.fromarray(noise), compress_level=int(level))
        assert (np.asarray(pixels_of(content)) == noise).all()


@pytest.mark.usefixtures("without_pillow")
def test_alpha_shows_white_without_pillow() -> None:
    image = PHOTO.convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    assert pixels_of(saved(image)).tobytes() == white.tobytes()


@pytest.mark.parametrize("filters", [0, 1, 2, 3, 4])
@pytest.mark.usefixtures("without_pillow")
def test_each_filter_is_undone(filters: int) -> None:
    """RFC 2083, 6: of the same filtered bytes, the filter alone decides which picture it is."""
    filtered = np.random.default_rng(filters).integers(0, 256, (60, 70, 3), np.uint8)
    rows = b"".join(bytes([filters]) + row.tobytes() for row in filtered)
    expected = np.zeros((61, 71, 3), int)  # with a row above and a pixel to the left of zeros
    for y, x in np.ndindex(60, 70):
        left, above, corner = expected[y + 1, x], expected[y, x + 1], expected[y, x]
        guess = left + above - corner
        distances = np.abs([guess - left, guess - above, guess - corner])
        paeth = np.choose(distances.argmin(axis=0), [left, above, corner])
        predicted = [0 * left, left, above, (left + above) // 2, paeth][filters]
        expected[y + 1, x + 1] = (filtered[y, x] + predicted) % 256
    pixels = pixels_of(png((70, 60), 8, 2, zlib.compress(rows)))
    assert (np.asarray(pixels) == expected[1:, 1:]).all()


@pytest.mark.parametrize("after_pixels", [False, True])
@pytest.mark.usefixtures("without_pillow")
def test_the_usual_kinds_are_turned_upright(after_pixels: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 270 degrees
    metadata = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    content = saved(PHOTO)
    place = content.index(b"IEND" if after_pixels else b"IDAT") - 4
    turned = pixels_of(content[:place] + metadata + content[place:])
    assert turned.tobytes() == PHOTO.transpose(Image.Transpose.ROTATE_270).tobytes()


def test_only_the_chunks_of_the_pixels_reach_the_decoder() -> None:
    content = saved(PHOTO)
    place = content.index(b"IDAT") - 4
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000)))
    palette = chunk(b"PLTE", bytes(3))
    read = read_png(content[:place] + text + palette + content[place:])
    assert read.pixels_alone().startswith(SIGNATURE)
    names = {bytes(part[4:8]) for part in read_png(read.pixels_alone()).chunks}
    assert names == {b"IHDR", b"IDAT", b"IEND"}
