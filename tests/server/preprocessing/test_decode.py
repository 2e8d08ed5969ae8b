"""Every format and kind of pixel that people send, and what is refused before it costs anything."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFile
from sklearn.datasets import load_sample_image

from convoy.v1 import classifier_pb2 as pb
from server.errors import ImageDecodeFailed, ImageFormatUnsupported, ImageTooLarge
from server.preprocessing import detail
from server.preprocessing.decode import DecodedImage, decode
from server.preprocessing.image_cost import MAX_SCAN_PIXELS, check_scans
from server.preprocessing.jpeg import Detail

ORIENTATION = 0x0112
PHOTO = Image.fromarray(load_sample_image("china.jpg")).resize((160, 107))
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, file_format, **options)
    return content.getvalue()


def decoded(content: bytes, max_bytes: int = 1 << 20, max_pixels: int = 1 << 20) -> DecodedImage:
    return decode(content, max_bytes=max_bytes, max_pixels=max_pixels)


def values(content: bytes) -> npt.NDArray[np.int_]:
    """H×W of grey, else H×W×3."""
    pixels = decoded(content).pixels
    return np.asarray(pixels if pixels.mode == "L" else pixels.convert("RGB")).astype(int)


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises width × height RGB pixels and has hardly any."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + data + png_chunk(b"IEND", b"")


# ---------------------------------------------------------------- formats


@pytest.mark.parametrize("file_format", FORMATS)
def test_each_format_is_read_and_named(file_format: str) -> None:
    image = decoded(encoded(PHOTO, file_format))
    assert (image.format, image.width, image.height) == (file_format, 160, 107)
    assert image.pixels.mode in ("RGB", "RGBX")
    assert image.pixels.size == PHOTO.size
    assert not image.exif_applied
    difference = np.abs(np.asarray(image.pixels)[..., :3].astype(int) - np.asarray(PHOTO))
    assert difference.mean() < 12  # GIF has 256 colours, JPEG and WebP lose a little


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_give_the_very_pixels(file_format: str) -> None:
    assert np.array_equal(values(encoded(PHOTO, file_format)), np.asarray(PHOTO))


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_first_frame_of_several_is_read(file_format: str) -> None:
    red, blue = (Image.new("RGB", (20, 20), colour) for colour in ("red", "blue"))
    options: dict[str, Any] = {"lossless": True} if file_format == "WEBP" else {}
    content = encoded(red, file_format, save_all=True, append_images=[blue], **options)
    assert values(content)[10, 10].tolist() == [255, 0, 0]


def test_mpo_of_a_phone_counts_as_jpeg() -> None:
    content = encoded(PHOTO, "MPO", save_all=True, append_images=[PHOTO.rotate(90)])
    image = decoded(content)
    assert (image.format, image.pixels.size) == ("JPEG", PHOTO.size)


def test_rgb_and_grey_pixels_are_not_copied() -> None:
    big = PHOTO.resize((1000, 1000))
    for image in (big, big.convert("L")):
        pixels = decoded(encoded(image, "PNG")).pixels
        assert isinstance(pixels, ImageFile.ImageFile)  # what Pillow decoded, itself
        assert pixels.mode == image.mode


@pytest.mark.parametrize(
    "options",
    [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"keep_rgb": True}],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_pixels_are_those_that_pillow_reads(mode: str, options: dict[str, Any]) -> None:
    photo = Image.fromarray(load_sample_image("flower.jpg")).convert(mode)
    if mode != "RGB":
        options = {key: value for key, value in options.items() if key == "progressive"}
    content = encoded(photo, "JPEG", **options)
    pillows = Image.open(io.BytesIO(content))
    assert pillows.mode == mode
    expected = pillows.convert("RGB") if mode == "CMYK" else pillows
    assert np.array_equal(values(content), np.asarray(expected))


def test_scans_are_counted_and_those_in_comments_are_not() -> None:
    content = encoded(PHOTO, "JPEG", progressive=True)
    thumbnail = b"\xff\xfe\x00\x0c" + b"\xff\xda\x00\x08\x01" + bytes(5)  # in a comment
    assert decoded(content[:2] + thumbnail * 100 + content[2:]).width == 160
    more = content[content.rindex(b"\xff\xda") : -2] * (101 - content.count(b"\xff\xda"))
    with pytest.raises(ImageTooLarge, match="101 scans, at most 100"):
        decoded(content[:-2] + more + content[-2:])


@pytest.mark.parametrize(
    ("segments", "count", "message"),
    [
        (b"\xff\xfe\0\2", 10_001, "10,001 parts, at most 10,000 are accepted: save it again"),
        (b"\xff\xfe\xff\xff" + bytes(65_533), 17, "bytes of metadata.*: save it without metadata"),
    ],
)
def test_what_is_no_picture_is_counted(segments: bytes, count: int, message: str) -> None:
    content = encoded(PHOTO, "JPEG")
    with pytest.raises(ImageTooLarge, match=message):
        decoded(content[:2] + segments * count + content[2:], max_bytes=2 << 20)


def test_scans_may_visit_few_pixels_and_a_single_one_all() -> None:
    check_scans(1, 2 * MAX_SCAN_PIXELS)
    check_scans(15, MAX_SCAN_PIXELS // 15)
    with pytest.raises(ImageTooLarge, match="750,000,016 pixels in its scans"):
        check_scans(16, MAX_SCAN_PIXELS // 16 + 1)


def test_a_png_of_too_many_bytes_is_refused_before_they_are_inflated() -> None:
    header = struct.pack(">IIBBBBB", 7000, 7000, 16, 6, 0, 0, 0)
    content = png_header(7000, 7000).replace(png_chunk(b"IHDR", png_header(7000, 7000)[16:29]), b"")
    content = content[:8] + png_chunk(b"IHDR", header) + content[8:]
    with pytest.raises(ImageTooLarge, match=r"392,007,000 bytes in its rows.*8 bits per value"):
        decoded(content, max_pixels=50_000_000)


def test_a_run_length_bmp_of_too_many_pixels_is_refused() -> None:
    bmp = bytearray(encoded(Image.new("L", (8, 8)), "BMP"))
    bmp[18:26] = struct.pack("<ii", 5000, 1000)
    bmp[30:34] = struct.pack("<I", 1)  # RLE8
    with pytest.raises(ImageTooLarge, match=r"5,000,000 pixels in run lengths.*as PNG"):
        decoded(bytes(bmp), max_pixels=50_000_000)


def test_a_kind_of_jpeg_that_is_not_decoded_is_named() -> None:
    content = encoded(PHOTO, "JPEG")
    frame = content.index(b"\xff\xc0")
    lossless = content[: frame + 1] + b"\xc3" + content[frame + 2 :]
    with pytest.raises(ImageFormatUnsupported, match="a lossless JPEG, which is not decoded here"):
        decoded(lossless)
    deep = content[: frame + 4] + b"\x0c" + content[frame + 5 :]
    with pytest.raises(ImageFormatUnsupported, match="a JPEG of 12 bits per value"):
        decoded(deep)


# ---------------------------------------------------------------- orientation


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(file_format: str, orientation: int) -> None:
    upright = np.zeros((48, 32), dtype=np.uint8)
    upright[:24, :16] = 250  # top left quarter
    upright[24:, :16] = 120  # bottom left
    # How a camera stores it: the inverse of what a reader must do (EXIF 2.3, tag 274).
    ways: dict[int, Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.T,
        6: np.rot90,
        7: lambda a: a[::-1, ::-1].T,
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    picture = Image.fromarray(np.ascontiguousarray(ways[orientation](upright))).convert("RGB")
    image = decoded(encoded(picture, file_format, exif=exif.tobytes()))
    assert (image.width, image.height) == (32, 48)
    assert image.exif_applied == (orientation != 1)
    grey = np.asarray(image.pixels)[..., 1].astype(int)
    assert np.abs(grey - upright)[4:-4, 4:-4].mean() < 8


# ---------------------------------------------------------------- grey and smaller


def grey(side: int) -> Detail:
    return Detail(is_grey=True, shorter=0, longer=side)


@pytest.mark.parametrize(
    ("side", "scaled"), [(20, (20, 13)), (21, (40, 26)), (80, (80, 52)), (81, (160, 104))]
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_is_decoded_grey_at_the_smallest_size_that_suffices(
    side: int, scaled: tuple[int, int], mode: str
) -> None:
    photo = PHOTO.convert(mode).crop((0, 0, 160, 104))
    content = encoded(photo, "JPEG", quality=95)
    image = decode(content, max_bytes=1 << 20, max_pixels=1 << 20, detail=grey(side))
    assert (image.pixels.mode, image.pixels.size) == ("L", scaled)
    assert (image.width, image.height) == photo.size  # as the file has it
    expected = photo.convert("L").resize(scaled, Image.Resampling.BOX)
    difference = np.asarray(image.pixels).astype(int) - np.asarray(expected)
    assert np.abs(difference).mean() < 6


def test_scaled_jpeg_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    content = encoded(PHOTO, "JPEG", exif=exif.tobytes())
    image = decode(content, max_bytes=1 << 20, max_pixels=1 << 20, detail=grey(80))
    assert (image.width, image.height, image.exif_applied) == (107, 160, True)
    assert image.pixels.size == (54, 80)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_a_cut_off_jpeg_is_an_error_at_any_size(share: float) -> None:
    content = encoded(PHOTO, "JPEG")[: int(share * len(encoded(PHOTO, "JPEG")))]
    with pytest.raises(ImageDecodeFailed):
        decode(content, max_bytes=1 << 20, max_pixels=1 << 20, detail=grey(20))


@pytest.mark.parametrize(
    "content",
    [encoded(PHOTO, "PNG"), encoded(PHOTO.convert("CMYK"), "JPEG")],
    ids=["PNG", "CMYK"],
)
def test_other_pictures_keep_size_and_colours(content: bytes) -> None:
    image = decode(content, max_bytes=1 << 20, max_pixels=1 << 20, detail=grey(20))
    assert image.pixels.size == PHOTO.size
    assert image.pixels.mode != "L"


@pytest.mark.parametrize(
    ("size", "resize", "scaled"),
    [
        ((1200, 1023), 256, (1200, 1023)),
        ((1200, 1024), 256, (600, 512)),
        ((1025, 1201), 224, (513, 601)),
        ((2047, 2047), 256, (1024, 1024)),
        ((3000, 2048), 256, (750, 512)),
        ((1400, 1367), 342, (1400, 1367)),
        ((1400, 1368), 342, (700, 684)),
    ],
)
def test_a_large_photo_is_decoded_at_no_less_than_twice_what_the_network_sees(
    size: tuple[int, int], resize: int, scaled: tuple[int, int]
) -> None:
    content = encoded(PHOTO.resize(size), "JPEG")
    needed = detail(pb.Preprocessing(photo=pb.Photo(resize=resize, crop=224)), is_exact=False)
    image = decode(content, max_bytes=1 << 24, max_pixels=1 << 24, detail=needed)
    assert (image.pixels.mode, image.pixels.size) == ("RGBX", scaled)
    assert (image.width, image.height) == size


# ---------------------------------------------------------------- odd metadata


BROKEN_EXIF = b"Exif\0\0II*\0\xff\xff\xff\xff"
WORD_FOR_ORIENTATION = b"Exif\0\0" + struct.pack(
    "<2sHIHHHI4sI", b"II", 42, 8, 1, ORIENTATION, 2, 4, b"six", 0
)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # as decode.py itself has it, outside pytest
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", BROKEN_EXIF, WORD_FOR_ORIENTATION])
def test_sound_pixels_with_broken_exif_are_read(exif: bytes) -> None:
    image = decoded(encoded(PHOTO, "JPEG", exif=exif))
    assert not image.exif_applied
    assert image.pixels.size == PHOTO.size


def test_odd_metadata_writes_nothing_to_the_log() -> None:
    program = """if True:
        import sys
        from server.preprocessing.decode import decode
        decode(sys.stdin.buffer.read(), max_bytes=1 << 20, max_pixels=1 << 20)"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        input=encoded(PHOTO, "JPEG", exif=BROKEN_EXIF),
        capture_output=True,
        cwd=Path(__file__).resolve().parents[3],
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, b"")


@pytest.mark.parametrize("orientation", [0, 9, 99])
def test_orientation_out_of_range_is_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert not decoded(encoded(PHOTO, "JPEG", exif=exif.tobytes())).exif_applied


# ---------------------------------------------------------------- kinds of pixels


def test_grey_and_black_and_white_become_grey() -> None:
    grey = PHOTO.convert("L")
    assert np.array_equal(values(encoded(grey, "PNG")), np.asarray(grey))
    black_and_white = values(encoded(PHOTO.convert("1"), "PNG"))
    assert set(np.unique(black_and_white)) == {0, 255}


def test_palette_becomes_rgb() -> None:
    palette = PHOTO.convert("P", palette=Image.Palette.ADAPTIVE)
    assert np.array_equal(values(encoded(palette, "PNG")), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
def test_transparent_pixels_show_white_paper(file_format: str) -> None:
    # A drawing pad: everything is black, and only alpha tells ink from paper.
    alpha = np.zeros((30, 30), dtype=np.uint8)
    alpha[10:20, 10:20] = 255
    alpha[0, 0] = 128
    pad = Image.merge("RGBA", [Image.new("L", (30, 30), 0)] * 3 + [Image.fromarray(alpha)])
    options: dict[str, Any] = {"lossless": True} if file_format == "WEBP" else {}
    seen = values(encoded(pad, file_format, **options))
    assert seen[15, 15].tolist() == [0, 0, 0]
    assert seen[5, 5].tolist() == [255, 255, 255]
    assert seen[0, 0].tolist() == [127, 127, 127]


def test_grey_with_alpha_stays_grey_over_white() -> None:
    pad = Image.merge("LA", [Image.new("L", (8, 8), 40), Image.new("L", (8, 8), 0)])
    pad.putpixel((3, 3), (40, 255))
    image = decoded(encoded(pad, "PNG"))
    assert image.pixels.mode == "L"
    assert image.pixels.getpixel((3, 3)) == 40
    assert image.pixels.getpixel((0, 0)) == 255


@pytest.mark.parametrize(
    ("mode", "transparency"), [("P", 0), ("P", b"\x00\xff"), ("L", 0), ("RGB", (0, 0, 0)), ("1", 0)]
)
def test_transparent_colour_shows_white_paper(
    mode: str, transparency: int | bytes | tuple[int, int, int]
) -> None:
    image = Image.new("RGB", (8, 8), "black")
    image.paste((255, 0, 0) if mode in ("P", "RGB") else "white", (4, 0, 8, 8))
    image = image.quantize(2) if mode == "P" else image.convert(mode)
    if mode == "P" and image.getpixel((0, 0)) != 0:
        image = image.remap_palette([1, 0])
    seen = values(encoded(image, "PNG", transparency=transparency))
    assert seen[0, 0].min() == 255  # black was the transparent colour
    assert seen[0, 7].tolist() == ([255, 0, 0] if mode in ("P", "RGB") else 255)


def test_transparent_gif_shows_white_paper() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((4, 4), 0)
    seen = values(encoded(image, "GIF", transparency=1))
    assert seen[0, 0].min() == 255
    assert seen[4, 4].max() == 0


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF"])
def test_cmyk_keeps_its_colours(file_format: str) -> None:
    seen = values(encoded(Image.new("RGB", (16, 16), (200, 30, 60)).convert("CMYK"), file_format))
    assert np.abs(seen - (200, 30, 60)).max() <= 4


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_clipped(file_format: str) -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (8, 1))
    assert np.array_equal(values(encoded(Image.fromarray(ramp), file_format)), ramp >> 8)


def test_16_bit_grey_of_either_byte_order_is_read() -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(">u2"), (8, 1))
    big_endian = Image.frombytes("I;16B", (256, 8), ramp.tobytes())
    assert np.array_equal(values(encoded(big_endian, "TIFF")), ramp >> 8)


def test_32_bit_integers_within_16_bits_are_read() -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.int32), (8, 1))
    assert np.array_equal(values(encoded(Image.fromarray(ramp), "TIFF")), ramp >> 8)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(np.full((8, 8), 70000, dtype=np.int32)),
        Image.fromarray(np.full((8, 8), -1, dtype=np.int32)),
        Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)),
        Image.new("LAB", (8, 8)),
    ],
)
def test_pixels_without_a_known_white_are_refused(image: Image.Image) -> None:
    with pytest.raises(ImageFormatUnsupported, match="convert it to 8 or 16 bits"):
        decoded(encoded(image, "TIFF"))


# ---------------------------------------------------------------- refusals


def test_no_bytes_are_a_decode_failure() -> None:
    with pytest.raises(ImageDecodeFailed, match="empty"):
        decoded(b"")


@pytest.mark.parametrize(
    "content",
    [b"<!DOCTYPE html><html>", b"hello", b"%PDF-1.7", b"\0" * 100, encoded(PHOTO, "ICO"), b"\xff"],
)
def test_other_content_is_unsupported_and_the_formats_are_named(content: bytes) -> None:
    with pytest.raises(ImageFormatUnsupported, match="JPEG, PNG, WEBP, GIF, BMP, TIFF"):
        decoded(content)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("file_format", FORMATS)
def test_a_cut_off_file_is_an_error_and_never_a_half_picture(
    file_format: str, share: float
) -> None:
    content = encoded(PHOTO, file_format)
    with pytest.raises(ImageDecodeFailed, match=f"{file_format} image of .* truncated or corrupt"):
        decoded(content[: int(share * len(content))])


@pytest.mark.parametrize("options", [{"progressive": True}, {"optimize": True}])
def test_a_cut_off_jpeg_of_any_kind_is_an_error(options: dict[str, bool]) -> None:
    content = encoded(PHOTO, "JPEG", **options)
    for length in range(20, len(content) - 2, 97):
        with pytest.raises(ImageDecodeFailed):
            decoded(content[:length])


@pytest.mark.parametrize("file_format", [*FORMATS, "deflated TIFF"])
def test_hostile_bytes_end_in_a_named_error_or_a_whole_picture(
    file_format: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Any other exception fails the test, and so does what a library prints of its own."""
    options = {"compression": "tiff_adobe_deflate"} if " " in file_format else {}
    original = encoded(PHOTO, file_format.removeprefix("deflated "), **options)
    random = np.random.default_rng(0)
    failures = 0
    for _ in range(150):
        content = bytearray(original)
        for place in random.integers(4, min(len(content), 400), size=3):
            content[place] = random.integers(256)
        try:
            image = decoded(bytes(content))
        except (ImageDecodeFailed, ImageFormatUnsupported, ImageTooLarge) as error:
            failures += 1
            assert not re.search(r"object at 0x|\.py|/tmp", error.message)
        else:
            assert image.pixels.size == (image.width, image.height)
            assert image.pixels.mode in ("RGB", "RGBX", "L")
    assert failures > 0
    assert capfd.readouterr() == ("", "")


def test_too_many_bytes_are_refused_with_value_and_limit() -> None:
    content = encoded(PHOTO, "PNG")
    assert decoded(content, max_bytes=len(content)).format == "PNG"
    with pytest.raises(ImageTooLarge, match=f"{len(content):,} bytes, at most") as caught:
        decoded(content, max_bytes=len(content) - 1)
    assert caught.value.metadata["limit"] == str(len(content) - 1)


def test_too_many_pixels_are_refused_with_value_and_limit() -> None:
    content = encoded(PHOTO, "PNG")
    assert decoded(content, max_pixels=160 * 107).width == 160
    with pytest.raises(ImageTooLarge, match=r"17,120 pixels, at most 17,119 .* 160×107"):
        decoded(content, max_pixels=160 * 107 - 1)


@pytest.mark.parametrize("side", [9_500, 60_000])  # Pillow itself would warn, and then refuse
def test_a_bomb_is_refused_from_its_header(side: int) -> None:
    # There are no pixels in it: to decode any would be another error.
    with pytest.raises(ImageTooLarge, match=f"{side * side:,} pixels"):
        decoded(png_header(side, side))


def test_the_limit_is_the_callers_and_not_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decoded(encoded(PHOTO, "PNG")).width == 160


@pytest.mark.parametrize("file_format", FORMATS)
def test_other_threads_go_on_while_a_large_picture_is_decoded(file_format: str) -> None:
    """No decoder keeps Python's lock, as one did that was tried, or the event loop stands still."""
    content = encoded(PHOTO.resize((4000, 3000)), file_format)
    assert any(  # other programs pause a thread too, but not each time
        share_of_the_longest_pause(decoded, content, 1 << 26, 1 << 24) < 0.7 for _ in range(5)
    )


def share_of_the_longest_pause(work: Callable[..., object], *arguments: object) -> float:
    """The longest time that this thread pauses while another one works, of what that takes."""
    seen_s = [time.monotonic()]
    with ThreadPoolExecutor(1) as threads:
        worker = threads.submit(work, *arguments)
        while not worker.done():
            seen_s.append(time.monotonic())
        seen_s.append(time.monotonic())
        worker.result()
    return float(np.diff(seen_s).max()) / (seen_s[-1] - seen_s[0])


def test_threads_may_decode_at_the_same_time() -> None:
    contents = [encoded(PHOTO, file_format) for file_format in FORMATS] * 8
    alone = [values(content) for content in contents[: len(FORMATS)]]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(values, contents))
    for index, pixels in enumerate(together):
        assert np.array_equal(pixels, alone[index % len(FORMATS)])
