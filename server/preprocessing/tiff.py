"""Read a TIFF file: what its directories list, and its pixels.

Pillow and libtiff believe what a directory says: how many strips there are, how long each is, and
how many values a tag has. So that is added up first.

Sources: TIFF 6.0 and the proposal of BigTIFF.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import TiffImagePlugin

from server.preprocessing.image_cost import SCAN, PartCounter, check_scans, too_large

# Pillow keeps an object for each strip or tile, which takes 12 µs: there may be one for so many
# pixels, 100,000 for 50 million. As tiles of 64×64 they would be 12,208.
PIXELS_PER_STRIP = 500
# Each strip lies elsewhere in the file; we allow for counts that are wrong, as some writers' are.
MAX_STRIP_BYTES_TIMES = 4

STRIP_OFFSETS = (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.TILEOFFSETS)
STRIP_BYTE_COUNTS = (TiffImagePlugin.STRIPBYTECOUNTS, TiffImagePlugin.TILEBYTECOUNTS)
# Directories that Pillow reads besides the first: of Exif, GPS and Interoperability.
TIFF_DIRECTORIES = (34665, 34853, 40965)
TIFF_DIRECTORY_DEPTH = 3
JPEG_COMPRESSIONS = (6, 7)
# Bytes of one value, by its type; the names of integers are numpy's.
TIFF_VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
TIFF_VALUE_BYTES |= {13: 4, 16: 8, 17: 8, 18: 8}
TIFF_INTEGERS = {3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}


@dataclass
class TiffCost:
    strips: int = 0  # or tiles
    strip_bytes: float = 0.0  # the sum of what is listed for them
    has_strip_bytes: bool = False
    compression: int = 1
    directories: list[int] = field(default_factory=list)  # positions of further ones


@dataclass(frozen=True)
class TiffEntry:
    tag: int
    kind: int
    count: int
    position: int  # of its values

    @property
    def n_bytes(self) -> int:
        return self.count * TIFF_VALUE_BYTES.get(self.kind, 0)

    def values(self, content: bytes, order: str) -> npt.NDArray[np.unsignedinteger[Any]]:
        """As many as the file has; none if they are no integers."""
        kind = TIFF_INTEGERS.get(self.kind)
        if kind is None or self.position >= len(content):
            return np.zeros(0, np.uint64)
        available = (len(content) - self.position) // TIFF_VALUE_BYTES[self.kind]
        count = min(self.count, available)
        return np.frombuffer(content, np.dtype(order + kind), count, self.position)

    def first(self, content: bytes, order: str) -> list[int]:
        """The first value, if there is one."""
        return [int(value) for value in self.values(content, order)[:1]]


def check_tiff(content: bytes, max_pixels: int) -> TiffCost:
    """
    Raises:
        ImageTooLarge: it has too many strips, entries or metadata.
        ValueError: its strips have more bytes than the file.
    """
    cost = tiff_cost(content)
    if cost.strips > (max_strips := max_pixels // PIXELS_PER_STRIP):
        raise too_large(cost.strips, max_strips, "strips", "save it with larger strips")
    if cost.compression == 1:  # without compression, Pillow reads as many bytes as it needs
        return cost
    # libtiff reads the whole rest of the file for each strip whose length is not listed.
    if cost.strip_bytes > MAX_STRIP_BYTES_TIMES * len(content) or (
        cost.strips > 1 and not cost.has_strip_bytes
    ):
        raise ValueError("its strips have more bytes than the file")
    return cost


def check_tiff_scans(cost: TiffCost, content: bytes, size: tuple[int, int]) -> None:
    """
    Raises:
        ImageTooLarge: its strips are JPEG files of too many scans.
    """
    if cost.compression in JPEG_COMPRESSIONS:
        scans = -(-len(SCAN.findall(content)) // max(1, cost.strips))
        check_scans(scans, size[0] * size[1])


def tiff_cost(content: bytes) -> TiffCost:
    order, is_big = "<" if content[:1] == b"I" else ">", 43 in content[2:4]
    cost, counter = TiffCost(), PartCounter()
    (offset,) = struct.unpack_from(order + ("Q" if is_big else "I"), content, 8 if is_big else 4)
    cost.directories.append(offset)
    for _ in range(TIFF_DIRECTORY_DEPTH):
        offsets, cost.directories = cost.directories, []
        for offset in offsets:
            for entry in _tiff_entries(content, offset, order, is_big=is_big):
                _count_entry(entry, content, order, cost, counter)
    return cost


def _tiff_entries(content: bytes, offset: int, order: str, *, is_big: bool) -> Iterator[TiffEntry]:
    """The entries of one directory. BigTIFF has wider numbers."""
    number, layout = ("Q", "HHQ") if is_big else ("H", "HHI")
    count, entry = struct.Struct(order + number), struct.Struct(order + layout)
    room = 8 if is_big else 4  # for the values or their position
    (entries,) = count.unpack_from(content, offset)
    offset += count.size
    for _ in range(entries):
        tag, kind, values = entry.unpack_from(content, offset)
        position = offset + entry.size
        if values * TIFF_VALUE_BYTES.get(kind, 0) > room:
            (position,) = struct.unpack_from(order + ("Q" if is_big else "I"), content, position)
        yield TiffEntry(tag, kind, values, position)
        offset += entry.size + room


def _count_entry(
    entry: TiffEntry, content: bytes, order: str, cost: TiffCost, counter: PartCounter
) -> None:
    if entry.tag in STRIP_OFFSETS:
        counter.add()
        cost.strips = max(cost.strips, entry.count)
        return
    if entry.tag in STRIP_BYTE_COUNTS:
        counter.add()
        cost.has_strip_bytes = True
        # As floats, which do not overflow.
        cost.strip_bytes += entry.values(content, order).sum(dtype=np.float64)
        return
    counter.add(entry.n_bytes)
    if entry.tag == TiffImagePlugin.COMPRESSION:
        cost.compression = next(iter(entry.first(content, order)), 1)
    elif entry.tag in TIFF_DIRECTORIES:
        cost.directories += entry.first(content, order)


def tile_size(image: TiffImagePlugin.TiffImageFile) -> tuple[int, int]:
    """Width and height of a TIFF's tiles, in pixels; 0×0 if it has none.

    A tile is decoded as a whole, however little of it the picture shows.
    """
    tags = image.tag_v2
    return tags.get(TiffImagePlugin.TILEWIDTH, 0), tags.get(TiffImagePlugin.TILELENGTH, 0)


def load_tiff(image: TiffImagePlugin.TiffImageFile) -> None:
    """
    Raises:
        ValueError: strips are missing. Pillow raises other exceptions too.
    """
    # Without compression, Pillow reads the listed strips and accepts too few of them.
    planar = image.tag_v2.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2
    planes = len(image.getbands()) if planar and image.tile[0].codec_name == "raw" else 1
    boxes = [tile.extents for tile in image.tile if tile.extents]
    listed = sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)
    if listed < planes * image.width * image.height:
        raise ValueError("its strips end before its last row")
    image.load()
