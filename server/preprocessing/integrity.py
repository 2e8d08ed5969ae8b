"""Load a picture completely or raise: checks for damage that Pillow ignores.

    JPEG  libjpeg's warnings: data that end early or are invalid
    PNG   checksums, the last chunk, pixels that end before the last row (RFC 2083)
    TIFF  strips that are not listed

The decoders of the other formats report damage themselves.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin


class PngHeader(NamedTuple):
    width: int
    height: int
    depth: int  # bits per channel
    colour: int
    compression: int
    filters: int
    interlace: int


CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of each colour type of PNG
# Left, top, step across, step down: for a plain PNG, and for the seven passes of an interlaced one.
PLAIN = ((0, 0, 1, 1),)
ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


def load_whole(image: ImageFile.ImageFile, content: bytes) -> Image.Image:
    """Load the pixels of a picture whose header was read from `content`.

    Raises:
        ValueError: the picture is damaged. Pillow's decoders raise other exceptions too.
    """
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        return _load_jpeg(image, content)
    if isinstance(image, PngImagePlugin.PngImageFile):
        _load_png(image, content)
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        _load_tiff(image)
    else:
        image.load()
    return image


def _load_jpeg(image: Image.Image, content: bytes) -> Image.Image:
    """Load the same pixels as Pillow does, but raise on libjpeg's warnings, which Pillow drops."""
    layout, raw = {"L": ("GRAY", "L"), "CMYK": ("CMYK", "CMYK;I")}.get(image.mode, ("RGBX",) * 2)
    # As large as the header that was checked, whatever the file contains. The picture uses this
    # memory.
    buffer = np.empty((image.height, image.width, 1 if image.mode == "L" else 4), dtype=np.uint8)
    try:
        pixels = simplejpeg.decode_jpeg(content, layout, buffer=buffer, strict=True)
    except ValueError as error:
        if "subsampling" not in str(error):
            raise
        image.load()  # rare, unsupported by TurboJPEG: Pillow loads it and misses damage
        return image
    return Image.frombuffer(image.mode, image.size, pixels, "raw", raw, 0, 1)


def _load_png(image: Image.Image, content: bytes) -> None:
    parts = _png_pixels(content)
    header = PngHeader._make(struct.unpack_from(">IIBBBBB", content, 16))
    image.load()
    # Pillow accepts a stream that ends after any row; the pixels of missing rows are zero.
    box = image.getbbox(alpha_only=False)
    last_row_is_zero = box is None or box[3] < image.height
    if last_row_is_zero or header.interlace:
        _check_png_rows(header, parts)
    if header.depth == 16 and "transparency" in image.info:  # Pillow has halved the pixels only
        image.info["transparency"] = _upper_bytes(image.info["transparency"])


def _upper_bytes(colour: int | tuple[int, ...]) -> int | tuple[int, ...]:
    return colour >> 8 if isinstance(colour, int) else tuple(value >> 8 for value in colour)


def _load_tiff(image: TiffImagePlugin.TiffImageFile) -> None:
    # Without compression, Pillow reads the listed strips and accepts too few of them.
    planar = image.tag_v2.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2
    planes = len(image.getbands()) if planar and image.tile[0].codec_name == "raw" else 1
    boxes = [tile.extents for tile in image.tile if tile.extents]
    listed = sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)
    if listed < planes * image.width * image.height:
        raise ValueError("its strips end before its last row")
    image.load()


# ---------------------------------------------------------------- PNG


def _png_pixels(content: bytes) -> list[memoryview]:
    """The compressed pixels: the parts of one zlib stream.

    Raises:
        ValueError: a chunk is cut off or does not match its checksum.
    """
    view, parts = memoryview(content), []
    start, name = 8, b""
    while name != b"IEND":
        length, name = struct.unpack(">I4s", view[start : start + 8].tobytes().ljust(8, b"\0"))
        data = view[start + 8 : start + 8 + length]
        checksum = view[start + 8 + length : start + 12 + length]
        if len(checksum) < 4:
            raise ValueError("it ends before its IEND chunk")
        if zlib.crc32(data, zlib.crc32(name)) != int.from_bytes(checksum):
            raise ValueError(f"its chunk {name!r} does not fit the checksum")
        if (name == b"IHDR") != (start == 8):
            raise ValueError("its first chunk is no header, or there are two")
        if name == b"IDAT":
            parts.append(data)
        start += 12 + length
    return parts


def _check_png_rows(header: PngHeader, parts: list[memoryview]) -> None:
    """Check that the compressed pixels fill every row.

    Raises:
        ValueError: they inflate to fewer bytes than the header requires.
    """
    missing = 0  # bytes
    for left, top, across, down in ADAM7 if header.interlace else PLAIN:
        columns, rows = -(-(header.width - left) // across), -(-(header.height - top) // down)
        if columns > 0 and rows > 0:
            bits = columns * header.depth * CHANNELS[header.colour]
            missing += rows * (1 + (bits + 7) // 8)  # each row begins with its filter
    stream = zlib.decompressobj()
    for part in parts:
        rest: bytes | memoryview = part
        while rest and missing > 0:
            missing -= len(stream.decompress(rest, 1 << 16))
            rest = stream.unconsumed_tail
    if missing > 0:
        raise ValueError(f"its pixels end {missing:,} bytes before its last row is full")
