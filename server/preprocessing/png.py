"""Read a PNG file: its chunks, with their checksums, and its pixels down to the last row.

Pillow ignores the checksums of what follows the pixels, and rows that are missing. It is given the
chunks that pixels and orientation depend on, and no others: it would inflate and keep every text.

Source: RFC 2083.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import NamedTuple

from PIL import PngImagePlugin

from server.preprocessing.image_cost import PartCounter, too_large

# What the rows inflate to, unfiltered. Most of the time of a PNG depends on it.
MAX_ROW_BYTES = 310_000_000  # 50 million pixels of 16-bit RGB are 300 MB and a byte per row


class PngHeader(NamedTuple):
    width: int
    height: int
    depth: int  # bits per channel
    colour: int
    compression: int
    filters: int
    interlace: int

    def row_bytes(self) -> int:
        """What the rows inflate to."""
        total = 0
        for left, top, across, down in ADAM7 if self.interlace else PLAIN:
            columns, rows = -(-(self.width - left) // across), -(-(self.height - top) // down)
            if columns > 0 and rows > 0:
                bits = columns * self.depth * CHANNELS[self.colour]
                total += rows * (1 + (bits + 7) // 8)  # each row begins with its filter
        return total


SIGNATURE = b"\x89PNG\r\n\x1a\n"
PICTURE_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
# How the chunks begin that may say which way is up.
ORIENTATION_CHUNKS = (
    b"eXIf",
    b"iTXtXML:com.adobe.xmp\0",
    b"tEXtRaw profile type exif\0",
    b"zTXtRaw profile type exif\0",
)

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


@dataclass
class Png:
    """What the chunks say."""

    header: PngHeader
    chunks: list[memoryview] = field(default_factory=list)  # those that are kept, whole
    pixels: list[memoryview] = field(default_factory=list)  # compressed: parts of one zlib stream

    def without_metadata(self) -> bytes:
        return b"".join([SIGNATURE, *self.chunks])


def read_png(content: bytes) -> Png:
    """Walk from chunk to chunk.

    Raises:
        ImageTooLarge: it has too many chunks or metadata.
        ValueError: a chunk is cut off or does not match its checksum.
    """
    view, counter = memoryview(content), PartCounter()
    png = Png(PngHeader._make(struct.unpack_from(">IIBBBBB", content, 16)))
    orientations: dict[bytes, memoryview] = {}  # Pillow, too, takes the last of each kind
    start, name = len(SIGNATURE), b""
    while name != b"IEND":
        length, name = struct.unpack(">I4s", view[start : start + 8].tobytes().ljust(8, b"\0"))
        end = start + 12 + length
        counter.add(0 if name in (*PICTURE_CHUNKS, b"fdAT") else length)
        _check_chunk(view[start:end], name, is_first=start == len(SIGNATURE))
        if name == b"IDAT":
            png.pixels.append(view[start + 8 : end - 4])
        if name in PICTURE_CHUNKS:
            png.chunks.append(view[start:end])
        beginning = content[start + 4 : start + 40]
        for kind in ORIENTATION_CHUNKS:
            if beginning.startswith(kind):
                orientations[kind] = view[start:end]
        start = end
    png.chunks[1:1] = orientations.values()
    return png


def _check_chunk(chunk: memoryview, name: bytes, *, is_first: bool) -> None:
    if len(chunk) < 12 + int.from_bytes(chunk[:4]):
        raise ValueError("it ends before its IEND chunk")
    if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:]):
        raise ValueError(f"its chunk {name!r} does not fit the checksum")
    if (name == b"IHDR") != is_first:
        raise ValueError("its first chunk is no header, or there are two")


def check_rows_size(header: PngHeader) -> None:
    """
    Raises:
        ImageTooLarge: its rows have too many bytes.
    """
    if (n_bytes := header.row_bytes()) > MAX_ROW_BYTES:
        raise too_large(
            n_bytes, MAX_ROW_BYTES, "bytes in its rows", "save it with 8 bits per value"
        )


def load_png(image: PngImagePlugin.PngImageFile, png: Png) -> None:
    """
    Raises:
        ValueError: rows are missing. Pillow raises other exceptions too.
    """
    image.load()
    # Pillow accepts a stream that ends after any row; the pixels of missing rows are zero.
    box = image.getbbox(alpha_only=False)
    last_row_is_zero = box is None or box[3] < image.height
    if last_row_is_zero or png.header.interlace:
        _check_rows(png.header, png.pixels)
    if png.header.depth == 16 and "transparency" in image.info:  # Pillow has halved the pixels only
        image.info["transparency"] = _upper_bytes(image.info["transparency"])


def _upper_bytes(colour: int | tuple[int, ...]) -> int | tuple[int, ...]:
    return colour >> 8 if isinstance(colour, int) else tuple(value >> 8 for value in colour)


def _check_rows(header: PngHeader, parts: list[memoryview]) -> None:
    """Check that the compressed pixels fill every row. What follows the rows is not inflated.

    Raises:
        ValueError: they inflate to fewer bytes than the header requires.
    """
    missing = header.row_bytes()
    stream = zlib.decompressobj()
    for part in parts:
        rest: bytes | memoryview = part
        inflated = b"more"
        while inflated and missing > 0:  # some may come when all of the part is read
            inflated = stream.decompress(rest, min(1 << 16, missing))
            missing -= len(inflated)
            rest = stream.unconsumed_tail
    if missing > 0:
        raise ValueError(f"its pixels end before its last row is full; bytes missing: {missing:,}")
