"""Decode an image file into 8-bit pixels, grey or RGB: upright, and over white.

The order of the checks is the protection: first the number of bytes, then the format by its first
bytes, then the sizes in the header, and only then the pixels. A truncated or damaged file is an
error, never a picture that is grey below the cut. Damage that leaves a JPEG, GIF, WebP, BMP or TIFF
well-formed cannot be detected, since these formats carry no checksum; nor can a JPEG that ends
between two scans.

Colour profiles (ICC) are not applied: the networks were trained on pixels read without them. Of
16-bit values the upper 8 bits are kept.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    _imaging,
)

from server.errors import (
    ImageDecodeFailed,
    ImageFormatUnsupported,
    ImageTooLarge,
    MalformedRequest,
)
from server.preprocessing.image_cost import (
    check_pixels,
    check_run_lengths,
    check_scans,
    check_webp,
    too_large,
    without_extensions,
)
from server.preprocessing.jpeg import Detail, load_jpeg, read_jpeg
from server.preprocessing.mistakes import find_mistake
from server.preprocessing.png import check_rows_size, load_png, read_png
from server.preprocessing.tiff import check_tiff, check_tiff_scans, load_tiff, tile_size

# Pillow warns about odd metadata. The text differs between files, and Python remembers every
# warning that it has shown, so clients' files would fill the log and the memory.
warnings.filterwarnings("ignore", module=r"PIL\.")

# libtiff prints a message about each damaged file into the log; Pillow raises the same error. The
# handlers are reached through the module of Pillow that is linked to libtiff, if it is.
with contextlib.suppress(AttributeError):
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)
    ctypes.CDLL(_imaging.__file__).TIFFSetWarningHandler(None)

# Pillow's own limit, which its WebP decoder reads, applies to the whole process; ours is passed
# with each call.
Image.MAX_IMAGE_PIXELS = None

# What each format's files begin with.
FORMATS: dict[str, re.Pattern[bytes]] = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM"),
    "TIFF": re.compile(rb"II[*+]\0|MM\0[*+]"),
}

# How to undo each EXIF orientation; 1 is upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = {5, 6, 7, 8}  # width and height change places


class Upright(NamedTuple):
    image: Image.Image
    size: tuple[int, int]  # of the file's picture, upright; the image may have fewer pixels
    turned: bool  # or mirrored, by its orientation


@dataclass(frozen=True)
class DecodedImage:
    # Upright, over white, 8 bits per channel: mode "RGB", "L", or "RGBX", which is RGB with an
    # unused fourth byte. Pillow stores RGB in four bytes too, and changing the mode would copy the
    # pixels.
    pixels: Image.Image
    width: int  # pixels, after turning upright
    height: int
    format: str  # a key of FORMATS
    exif_applied: bool  # the EXIF orientation turned or mirrored the picture


def decode(
    content: bytes, *, max_bytes: int, max_pixels: int, detail: Detail | None = None
) -> DecodedImage:
    """Decode the first picture of an image file.

    A JPEG is decoded with no more detail than is needed: grey, or at a half, a quarter or an eighth
    of its size, which takes a fraction of the time.

    Raises:
        MalformedRequest: it is something else than an image file, by a usual mistake.
        ImageFormatUnsupported: the format is not in FORMATS, or the pixels have no defined white.
        ImageTooLarge: the file exceeds max_bytes, or width × height exceeds max_pixels.
        ImageDecodeFailed: the file is empty, truncated or corrupt.
    """
    if not content:
        raise ImageDecodeFailed("The image is empty (0 bytes): send the content of an image file")
    if len(content) > max_bytes:
        raise too_large(len(content), max_bytes, "bytes", "compress it more, or make it smaller")
    if mistake := find_mistake(content):
        raise MalformedRequest(f"The image {mistake}", field="image")
    name = _detect_format(content)
    try:
        if name == "JPEG":
            upright = _read_jpeg(content, max_pixels, detail)
        else:
            upright = READERS[name](content, max_pixels)
        pixels = _to_8_bit(upright.image)
    except (ImageFormatUnsupported, ImageTooLarge):
        raise
    # Hostile bytes raise almost any exception in Pillow: OSError, SyntaxError, struct.error,
    # ValueError, KeyError, OverflowError, zlib.error, MemoryError. None is the gateway's fault.
    except Exception as error:
        raise ImageDecodeFailed(
            f"The {name} image of {len(content):,} bytes is truncated or corrupt "
            f"({str(error) or type(error).__name__}): send the whole file"
        ) from error
    return DecodedImage(pixels, *upright.size, name, upright.turned)


def _detect_format(content: bytes) -> str:
    for name, beginning in FORMATS.items():
        if beginning.match(content):
            return name
    raise ImageFormatUnsupported(
        f"The image is in none of the formats {', '.join(FORMATS)}: convert it to one of them"
    )


# ---------------------------------------------------------------- the formats

# Each reads the header, refuses what is too large, and returns the upright picture.


def _read_jpeg(content: bytes, max_pixels: int, detail: Detail | None) -> Upright:
    """The first picture of the MPO files of stereo cameras and phones is a JPEG, too."""
    jpeg = read_jpeg(content)
    check_pixels(jpeg.size, max_pixels)
    check_scans(jpeg.scans, jpeg.size[0] * jpeg.size[1])
    described = Image.Image()
    described.info = {"exif": jpeg.exif, "xmp": jpeg.xmp}
    image = load_jpeg(jpeg, content, detail)
    return _turn(image, _orientation(described), jpeg.size)


def _read_png(content: bytes, max_pixels: int) -> Upright:
    png = read_png(content)
    image = PngImagePlugin.PngImageFile(io.BytesIO(png.without_metadata()))
    check_pixels(image.size, max_pixels)
    check_rows_size(png.header)
    load_png(image, png)
    return _turn(image, _orientation(image), image.size)


def _read_webp(content: bytes, max_pixels: int) -> Upright:
    check_webp(content, max_pixels)  # Pillow takes memory for the canvas as it reads the header
    image = WebPImagePlugin.WebPImageFile(io.BytesIO(content))
    image.load()
    return _turn(image, _orientation(image), image.size)


def _read_gif(content: bytes, max_pixels: int) -> Upright:
    image = GifImagePlugin.GifImageFile(io.BytesIO(without_extensions(content)))
    check_pixels(image.size, max_pixels)
    image.load()
    return Upright(image, image.size, turned=False)


def _read_bmp(content: bytes, max_pixels: int) -> Upright:
    image = BmpImagePlugin.BmpImageFile(io.BytesIO(content))
    check_pixels(image.size, max_pixels)
    check_run_lengths(image, content, max_pixels)
    image.load()
    return Upright(image, image.size, turned=False)


def _read_tiff(content: bytes, max_pixels: int) -> Upright:
    cost = check_tiff(content, max_pixels)
    image = TiffImagePlugin.TiffImageFile(io.BytesIO(content))
    check_pixels(image.size, max_pixels)
    check_pixels(tile_size(image), max_pixels)
    check_tiff_scans(cost, content, image.size)
    # Pillow turns a TIFF upright while loading and drops the tag.
    turned = image.tag_v2.get(ExifTags.Base.Orientation, 1) in TURNS
    load_tiff(image)
    return Upright(image, image.size, turned)


# But for JPEG, which may be decoded smaller.
READERS: dict[str, Callable[[bytes, int], Upright]] = {
    "PNG": _read_png,
    "WEBP": _read_webp,
    "GIF": _read_gif,
    "BMP": _read_bmp,
    "TIFF": _read_tiff,
}


def _turn(image: Image.Image, orientation: int, size: tuple[int, int]) -> Upright:
    turn = TURNS.get(orientation)
    if turn is None:
        return Upright(image, size, turned=False)
    return Upright(image.transpose(turn), size[::-1] if orientation in SIDEWAYS else size, True)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken metadata around valid pixels: browsers show such a picture too
        return 1


# ---------------------------------------------------------------- pixels


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Convert any mode of the formats to "RGB", "RGBX" or "L"; these three stay as they are."""
    if image.mode.startswith("I"):
        image = _upper_byte(image)
    if image.has_transparency_data:
        return _composite_over_white(image)
    if image.mode in ("RGB", "RGBX", "L"):
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("P", "CMYK", "YCbCr"):
        return image.convert("RGB")
    raise _unsupported_pixels(f"colour mode {image.mode}")


def _composite_over_white(image: Image.Image) -> Image.Image:
    grey = image.mode in ("1", "L", "LA", "La")
    with_alpha = "LA" if grey else "RGBA"
    if image.mode != with_alpha:
        image = image.convert(with_alpha)
    paper = Image.new("L" if grey else "RGB", image.size, "white")
    paper.paste(image, mask=image)
    return paper


def _upper_byte(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits: Pillow's own conversion clips most values to white."""
    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > 0xFFFF):
        raise _unsupported_pixels("grey values of 32 bits")
    upper = Image.fromarray((values >> 8).astype(np.uint8))
    upper.info = image.info  # may hold the transparent colour of a PNG
    return upper


def _unsupported_pixels(what: str) -> ImageFormatUnsupported:
    return ImageFormatUnsupported(
        f"The image has {what}, which have no fixed black and white: convert it to 8 or 16 bits"
    )
