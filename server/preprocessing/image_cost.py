"""How expensive an image file is, read from its header where Pillow would find out too late.

Sources: T.81 (JPEG), RFC 9649 (WebP), TIFF 6.0 and the proposal of BigTIFF.
"""

from __future__ import annotations

import re
import struct

from PIL import Image, TiffImagePlugin

# The header of a JPEG's scan with N components has 6 + 2·N bytes; other data match at 1 of 10¹⁰
# positions.
SCAN = re.compile(rb"\xff\xda\0(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")


def jpeg_scans(content: bytes) -> int:
    """The number of scans, including those of thumbnails and further pictures."""
    return len(SCAN.findall(content))


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


def tiff_strips(content: bytes) -> int:
    """The number of strips or tiles that the first directory lists."""
    order = "<" if content[:1] == b"I" else ">"
    # Position of the directory's offset; formats of an offset, a number of entries, an entry.
    # BigTIFF uses wider ones.
    position, formats = (8, ("Q", "Q", "HHQQ")) if 43 in content[2:4] else (4, ("I", "H", "HHII"))
    start, count, entry = (struct.Struct(order + layout) for layout in formats)
    (offset,) = start.unpack_from(content, position)
    (entries,) = count.unpack_from(content, offset)
    offset += count.size
    counts = [0]
    for _ in range(entries):
        tag, _, number, _ = entry.unpack_from(content, offset)
        offset += entry.size
        if tag in (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.TILEOFFSETS):
            counts.append(number)
    return max(counts)


def tiff_tile(image: Image.Image) -> tuple[int, int]:
    """Width and height of a TIFF's tiles, in pixels; 0×0 if it has none.

    A tile is decoded as a whole, however little of it the picture shows.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 0, 0
    tags = image.tag_v2
    return tags.get(TiffImagePlugin.TILEWIDTH, 0), tags.get(TiffImagePlugin.TILELENGTH, 0)
