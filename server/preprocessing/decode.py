"""From the bytes of an image file to 8-bit pixels: turned upright, over white, grey or RGB.

The order is the protection: the count of bytes, then the format by its first bytes, then what the
header asks for, and only then the pixels. A file that is cut off or damaged is an error, never a
picture that is grey below the cut. Damage that leaves a JPEG, GIF, WebP, BMP or TIFF well-formed
cannot be told, since these formats carry no checksum; nor can a JPEG that ends between two scans.

Colour profiles (ICC) are not applied: the networks were trained on pixels read without them. Of 16
bits the upper 8 count.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    _imaging,
)

from server.errors import ImageDecodeFailed, ImageFormatUnsupported, ImageTooLarge
from server.preprocessing import image_cost
from server.preprocessing.integrity import load_whole

# Pillow warns of odd metadata. The text differs from file to file and Python remembers every text
# that it has shown, so strangers' files would fill the log and the memory.
warnings.filterwarnings("ignore", module=r"PIL\.")

# libtiff prints of each damaged file, between the lines of the log, what Pillow raises as well. Its
# handlers are found through the module of Pillow that is linked to it, where there is one.
with contextlib.suppress(AttributeError):
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)
    ctypes.CDLL(_imaging.__file__).TIFFSetWarningHandler(None)

# Pillow's own limit, which its WebP asks, is one for the whole process; ours comes with the call.
Image.MAX_IMAGE_PIXELS = None

# A scan of a JPEG takes 30 bytes of the file, and a walk over all of the pixels. Cameras write 1,
# the finest progressive encoders about 15; libtiff has the same limit.
MAX_SCANS = 100
# Pillow keeps an object for each. 50 million pixels are 12,208 tiles of 64×64.
MAX_STRIPS = 100_000

Opener = Callable[[io.BytesIO], ImageFile.ImageFile]

# What a file of each format begins with, and what reads its header. JPEG's opener also takes the
# MPO of stereo cameras and phones, whose first picture counts.
FORMATS: dict[str, tuple[re.Pattern[bytes], Opener]] = {
    "JPEG": (re.compile(rb"\xff\xd8\xff"), JpegImagePlugin.jpeg_factory),
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    "WEBP": (re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    "GIF": (re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    "BMP": (re.compile(rb"BM"), BmpImagePlugin.BmpImageFile),
    "TIFF": (re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImagePlugin.TiffImageFile),
}

# What undoes each EXIF orientation; 1 is upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class DecodedImage:
    # Upright, over white, 8 bits a channel: mode "RGB", "L", or "RGBX", which is RGB with a fourth
    # byte that means nothing. Pillow keeps RGB in four bytes, too: to change the name is a copy.
    pixels: Image.Image
    width: int  # of the upright picture
    height: int
    format: str  # a key of FORMATS
    exif_applied: bool  # the EXIF orientation turned or mirrored the picture


def decode(content: bytes, *, max_bytes: int, max_pixels: int) -> DecodedImage:
    """The first picture of an image file.

    Raises:
        ImageFormatUnsupported: not one of FORMATS, or pixels without a known white.
        ImageTooLarge: more than max_bytes, or a width × height of more than max_pixels.
        ImageDecodeFailed: empty, truncated or corrupt.
    """
    if not content:
        raise ImageDecodeFailed("The image is empty (0 bytes): send the content of an image file")
    if len(content) > max_bytes:
        raise _too_large(len(content), max_bytes, "bytes", "compress it more, or make it smaller")
    name = _format_of(content)
    try:
        _refuse_costly(name, content, max_pixels)
        image = FORMATS[name][1](io.BytesIO(content))
        _refuse_too_many_pixels(image.size, max_pixels)
        _refuse_too_many_pixels(image_cost.tiff_tile(image), max_pixels)
        upright, turned = _load_upright(image, content)
        pixels = _eight_bit(upright)
    except (ImageFormatUnsupported, ImageTooLarge):
        raise
    # Hostile bytes raise nearly anything in Pillow: OSError, SyntaxError, struct.error, ValueError,
    # KeyError, OverflowError, zlib.error, MemoryError. None of them is the gateway's fault.
    except Exception as error:
        raise ImageDecodeFailed(
            f"The {name} image of {len(content):,} bytes is truncated or corrupt "
            f"({str(error) or type(error).__name__}): send the whole file"
        ) from error
    return DecodedImage(pixels, pixels.width, pixels.height, name, turned)


def _format_of(content: bytes) -> str:
    for name, (beginning, _) in FORMATS.items():
        if beginning.match(content):
            return name
    raise ImageFormatUnsupported(
        f"The image is in none of the formats {', '.join(FORMATS)}: convert it to one of them"
    )


def _refuse_costly(name: str, content: bytes, max_pixels: int) -> None:
    """What costs memory as soon as Pillow reads the header, or time that the size does not show."""
    if name == "WEBP":
        _refuse_too_many_pixels(image_cost.webp_size(content), max_pixels)
    if name == "JPEG" and (scans := image_cost.jpeg_scans(content)) > MAX_SCANS:
        raise _too_large(scans, MAX_SCANS, "scans", "save it anew, baseline or progressive")
    if name == "TIFF" and (strips := image_cost.tiff_strips(content)) > MAX_STRIPS:
        raise _too_large(strips, MAX_STRIPS, "strips", "save it with larger ones")


def _refuse_too_many_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise _too_large(width * height, max_pixels, "pixels", f"{width}×{height}: make it smaller")


def _too_large(value: int, limit: int, unit: str, remedy: str) -> ImageTooLarge:
    return ImageTooLarge(
        f"The image has {value:,} {unit}, at most {limit:,} are accepted: {remedy}",
        unit=unit,
        value=str(value),
        limit=str(limit),
    )


def _load_upright(image: ImageFile.ImageFile, content: bytes) -> tuple[Image.Image, bool]:
    """The decoded picture, and whether its EXIF orientation turned or mirrored it."""
    # Pillow turns a TIFF while it loads it, and forgets the tag; a PNG's may come after its pixels.
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        turned = image.tag_v2.get(ExifTags.Base.Orientation, 1) in TURNS
        return load_whole(image, content), turned
    loaded = load_whole(image, content)
    turn = TURNS.get(_orientation(image))
    return (loaded, False) if turn is None else (loaded.transpose(turn), True)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken metadata around sound pixels: browsers show such a picture, too
        return 1


def _eight_bit(image: Image.Image) -> Image.Image:
    """Mode "RGB", "RGBX" or "L" from any that the formats have; these three pass as they are."""
    if image.mode.startswith("I"):
        image = _upper_byte(image)
    if image.has_transparency_data:
        return _over_white(image)
    if image.mode in ("RGB", "RGBX", "L"):
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("P", "CMYK", "YCbCr"):
        return image.convert("RGB")
    raise _unsupported_pixels(f"colour mode {image.mode}")


def _over_white(image: Image.Image) -> Image.Image:
    grey = image.mode in ("1", "L", "LA", "La")
    with_alpha = "LA" if grey else "RGBA"
    if image.mode != with_alpha:
        image = image.convert(with_alpha)
    paper = Image.new("L" if grey else "RGB", image.size, "white")
    paper.paste(image, mask=image)
    return paper


def _upper_byte(image: Image.Image) -> Image.Image:
    """16-bit grey to 8 bits. Scaled: Pillow's own conversion would clip most of it to white."""
    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > 0xFFFF):
        raise _unsupported_pixels("grey values of 32 bits")
    upper = Image.fromarray((values >> 8).astype(np.uint8))
    upper.info = image.info  # a PNG's may have a transparent colour
    return upper


def _unsupported_pixels(what: str) -> ImageFormatUnsupported:
    return ImageFormatUnsupported(
        f"The image has {what}, which have no fixed black and white: convert it to 8 or 16 bits"
    )
