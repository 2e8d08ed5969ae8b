"""Bounds on what an image file may cost, counted in its container before it is decoded.

The number of bytes and of pixels says little about the time that a file takes: a million empty
chunks are a few megabytes, and a scan of thirty bytes visits every pixel. So the parts of a file
are counted, and the bytes of those that hold no pixels. Each walk ends at the first number that is
too high, so that it is bounded itself.

Sources: RFC 9649 (WebP), GIF89a, Microsoft's BITMAPINFOHEADER. JPEG, PNG and TIFF have modules.
"""

from __future__ import annotations

import re
import struct

from PIL import BmpImagePlugin

from server.errors import ImageTooLarge

MAX_METADATA_BYTES = 1 << 20
MAX_PARTS = 10_000  # segments, chunks, extensions, entries of directories
# A scan takes 30 bytes in a JPEG file, and decoding it visits every pixel. Cameras write 1 scan,
# the finest progressive encoders about 15; libtiff has the same limit.
MAX_SCANS = 100
MAX_SCAN_PIXELS = 750_000_000  # 15 scans of 50 million pixels
# Pillow decodes run lengths in Python, 0.3 µs per pixel: these have one of so many pixels.
RLE_SHARE = 12
MAX_RLE_BYTES = 2 << 20

# The header of a JPEG's scan with N components has 6 + 2·N bytes; other data match at 1 of 10¹⁰
# positions.
SCAN = re.compile(rb"\xff\xda\0(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")


class PartCounter:
    """Counts the parts of one file."""

    def __init__(self) -> None:
        self._n_parts = 0
        self._metadata_bytes = 0

    def add(self, metadata_bytes: int = 0) -> None:
        """One part, and its bytes if it holds no pixels.

        Raises:
            ImageTooLarge: there are too many.
        """
        self._n_parts += 1
        self._metadata_bytes += metadata_bytes
        if self._n_parts > MAX_PARTS:
            raise too_large(self._n_parts, MAX_PARTS, "parts", "save it again")
        if self._metadata_bytes > MAX_METADATA_BYTES:
            raise too_large(
                self._metadata_bytes,
                MAX_METADATA_BYTES,
                "bytes of metadata",
                "save it without metadata",
            )


def too_large(value: int, limit: int, unit: str, remedy: str) -> ImageTooLarge:
    return ImageTooLarge(
        f"The image has {value:,} {unit}, at most {limit:,} are accepted: {remedy}",
        unit=unit,
        value=str(value),
        limit=str(limit),
    )


def check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    """
    Raises:
        ImageTooLarge: width × height exceeds max_pixels.
    """
    width, height = size
    if width * height > max_pixels:
        raise too_large(width * height, max_pixels, "pixels", f"{width}×{height}: make it smaller")


def check_scans(scans: int, pixels: int) -> None:
    """Of `pixels` pixels each.

    Raises:
        ImageTooLarge: there are too many, or they visit too many pixels.
    """
    remedy = "save it again, baseline or progressive"
    if scans > MAX_SCANS:
        raise too_large(scans, MAX_SCANS, "scans", remedy)
    if scans > 1 and scans * pixels > MAX_SCAN_PIXELS:
        raise too_large(scans * pixels, MAX_SCAN_PIXELS, "pixels in its scans", remedy)


# ---------------------------------------------------------------- WebP

WEBP_PICTURE = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF")


def check_webp(content: bytes, max_pixels: int) -> None:
    """
    Raises:
        ImageTooLarge: the canvas has too many pixels, or the file too many chunks or metadata.
    """
    check_pixels(webp_size(content), max_pixels)
    counter, position = PartCounter(), 12
    while position + 8 <= len(content):
        (length,) = struct.unpack_from("<I", content, position + 4)
        length = min(length, len(content) - position - 8)
        counter.add(0 if content[position : position + 4] in WEBP_PICTURE else length)
        position += 8 + length + length % 2


def webp_size(content: bytes) -> tuple[int, int]:
    """Width and height of the canvas, in pixels."""
    kind, chunk = content[12:16], content[20:30].ljust(10, b"\0")
    if kind == b"VP8X":
        width, height = (int.from_bytes(chunk[at : at + 3], "little") + 1 for at in (4, 7))
        return width, height
    if kind == b"VP8L":
        bits = int.from_bytes(chunk[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", chunk[6:])
    return width & 0x3FFF, height & 0x3FFF


# ---------------------------------------------------------------- GIF

GIF_EXTENSION, GIF_IMAGE, GIF_END, GIF_CONTROL = 0x21, 0x2C, 0x3B, 0xF9


def without_extensions(content: bytes) -> bytes:
    """A GIF without what comes before its first picture, but for the palette and the transparent
    colour.

    Raises:
        ImageTooLarge: that is too much.
        IndexError: the file ends before the first picture.
    """
    flags = content[10]
    start = position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    counter, control = PartCounter(), b""
    while content[position] not in (GIF_IMAGE, GIF_END):
        began = position
        position += 1  # Pillow skips bytes that begin nothing
        if content[began] == GIF_EXTENSION:
            position = _sub_blocks_end(content, began + 2, counter)
            if content[began + 1] == GIF_CONTROL:
                control = content[began:position]
        counter.add(position - began)
    return content if position == start else content[:start] + control + content[position:]


def _sub_blocks_end(content: bytes, position: int, counter: PartCounter) -> int:
    while length := content[position]:
        counter.add()
        position += 1 + length
    return position + 1


# ---------------------------------------------------------------- BMP


def check_run_lengths(image: BmpImagePlugin.BmpImageFile, content: bytes, max_pixels: int) -> None:
    """
    Raises:
        ImageTooLarge: it is compressed by run lengths, and too large for that.
    """
    if image.tile[0].codec_name != "bmp_rle":
        return
    remedy = "save it without compression, or as PNG"
    if (pixels := image.width * image.height) > max_pixels // RLE_SHARE:
        raise too_large(pixels, max_pixels // RLE_SHARE, "pixels in run lengths", remedy)
    if len(content) > MAX_RLE_BYTES:
        raise too_large(len(content), MAX_RLE_BYTES, "bytes of run lengths", remedy)
