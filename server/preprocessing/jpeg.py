"""Read a JPEG file: its header, its scans and its orientation without decoding, then its pixels.

The segments are walked here and not by Pillow, which keeps each in memory and joins those of Exif
one by one. The pixels come from libjpeg-turbo, which reports damage; Pillow drops its warnings.

Source: ITU-T T.81.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, JpegImagePlugin

from server.errors import ImageFormatUnsupported
from server.preprocessing.image_cost import PartCounter

BY = (1, 2, 4, 8)  # what libjpeg can divide the sides by as it decodes

# Markers.
BASELINE, EXTENDED, PROGRESSIVE, ARITHMETIC, ARITHMETIC_PROGRESSIVE = 0xC0, 0xC1, 0xC2, 0xC9, 0xCA
START, END, START_OF_SCAN = 0xD8, 0xD9, 0xDA
APP0, APP1, APP14, COMMENT = 0xE0, 0xE1, 0xEE, 0xFE
WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
DECODED = {BASELINE, EXTENDED, PROGRESSIVE, ARITHMETIC, ARITHMETIC_PROGRESSIVE}
NOT_DECODED = {
    0xC3: "lossless",
    0xC5: "hierarchical",
    0xC6: "hierarchical",
    0xC7: "hierarchical lossless",
    0xCB: "lossless",
    0xCD: "hierarchical",
    0xCE: "hierarchical",
    0xCF: "hierarchical lossless",
    0xF7: "JPEG-LS",
}
MODES = {1: "L", 3: "RGB", 4: "CMYK"}  # Pillow's, by the number of components
EXIF, XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"

FILL = re.compile(rb"\xff++")
# In a scan's data, a 0 or a restart marker after FF is no end, and FF may be repeated.
SCAN_END = re.compile(rb"\xff[^\0\xd0-\xd7\xff]")
EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0xd9")


@dataclass
class Jpeg:
    """What the segments say."""

    mode: str = ""
    size: tuple[int, int] = (0, 0)  # width and height, in pixels
    scans: int = 0
    exif: bytes = b""
    xmp: bytes = b""
    end: int = 0  # position of the end marker, or of the end of the file
    kept: list[tuple[int, int]] = field(default_factory=list)  # from, to: of each segment
    has_junk: bool = False  # between the segments of its header

    def without_junk(self, content: bytes) -> bytes:
        """Only what was walked up to the first scan, then all that follows."""
        if not self.has_junk:
            return content
        parts = [content[start:end] for start, end in self.kept]
        return b"".join([content[:2], *parts, content[self.kept[-1][1] :]])

    def without_metadata(self, content: bytes) -> bytes:
        """As `without_junk`, and only those segments that pixels depend on."""
        needless = {*range(APP0 + 1, APP0 + 16), COMMENT} - {APP14}
        parts = [content[a:b] for a, b in self.kept if content[a + 1] not in needless]
        return b"".join([content[:2], *parts, content[self.kept[-1][1] : self.end + 2]])


def read_jpeg(content: bytes) -> Jpeg:
    """Walk from segment to segment, and from scan to scan.

    Raises:
        ImageFormatUnsupported: it is a kind of JPEG that is not decoded here.
        ImageTooLarge: it has too many segments or metadata.
        IndexError, ValueError: it ends too early, or is no JPEG.
    """
    jpeg, counter, exif = Jpeg(), PartCounter(), list[bytes]()
    position = 2
    while not jpeg.scans:
        start = _next_marker(content, position, counter)
        jpeg.has_junk |= start != position
        marker, position = content[start + 1], _segment_end(content, start)
        jpeg.kept.append((start, position))
        data = content[start + 4 : position]
        counter.add(position - start if marker != START_OF_SCAN else 0)
        if marker == START_OF_SCAN:
            jpeg.scans = 1
        elif marker in DECODED or marker in NOT_DECODED:
            _read_frame(jpeg, marker, data)
        elif marker == APP1 and data.startswith(EXIF):
            exif.append(data if not exif else data[len(EXIF) :])
        elif marker == APP1 and data.startswith(XMP):
            jpeg.xmp = data
    if not jpeg.mode:
        raise ValueError("it has a scan before the header of its frame")
    jpeg.exif = b"".join(exif)
    _walk_scans(jpeg, content, position, counter)
    return jpeg


def _next_marker(content: bytes, position: int, counter: PartCounter) -> int:
    """Where the last FF before the marker is; bytes before it are junk, which is counted."""
    while True:
        found = content.find(b"\xff", position)
        fill = FILL.match(content, found) if found >= 0 else None
        if fill is None or fill.end() == len(content):
            raise ValueError("it ends in its header")
        start = fill.end() - 1
        is_marker = content[start + 1] != 0  # FF and 0 mark nothing
        after_junk = start if is_marker else start + 2
        if after_junk > position:
            counter.add(after_junk - position)
        if is_marker:
            return start
        position = after_junk


def _segment_end(content: bytes, start: int) -> int:
    marker = content[start + 1]
    if marker in WITHOUT_LENGTH:
        return start + 2
    length = content[start + 2] << 8 | content[start + 3]
    end = start + 2 + length
    if marker in (START, END) or length < 2 or end > len(content):
        raise ValueError("it ends in its header")
    return end


def _read_frame(jpeg: Jpeg, marker: int, data: bytes) -> None:
    depth, components = data[0], data[5]
    if marker in NOT_DECODED:
        raise _not_decoded(f"a {NOT_DECODED[marker]} JPEG")
    if depth != 8:
        raise _not_decoded(f"a JPEG of {depth} bits per value")
    if components not in MODES:
        raise _not_decoded(f"a JPEG of {components} components")
    jpeg.mode = MODES[components]
    jpeg.size = (data[3] << 8 | data[4], data[1] << 8 | data[2])


def _not_decoded(what: str) -> ImageFormatUnsupported:
    return ImageFormatUnsupported(
        f"The image is {what}, which is not decoded here: "
        "save it as a baseline or progressive JPEG of 8 bits, or as PNG"
    )


def _walk_scans(jpeg: Jpeg, content: bytes, position: int, counter: PartCounter) -> None:
    """Counts the scans after the first, and finds the end."""
    while found := SCAN_END.search(content, position):
        start = found.start()
        marker = content[start + 1]
        if marker == END:
            jpeg.end = start
            return
        jpeg.scans += marker == START_OF_SCAN
        position = _segment_end(content, start)
        counter.add(position - start if marker != START_OF_SCAN else 0)
    jpeg.end = len(content)  # libjpeg reports that there is no end


# ---------------------------------------------------------------- pixels


class Detail(NamedTuple):
    """As much of a picture as a network can see."""

    is_grey: bool
    shorter: int  # pixels of that side, at least
    longer: int

    def factor(self, size: tuple[int, int]) -> int:
        """By how much the sides of a picture of that size can be divided."""
        shorter, longer = sorted(size)
        suffices = (by for by in BY if shorter >= by * self.shorter and longer >= by * self.longer)
        return max(suffices, default=1)


def load_jpeg(jpeg: Jpeg, content: bytes, detail: Detail | None = None) -> Image.Image:
    """The same pixels as Pillow's, but libjpeg's warnings are errors.

    Where not all detail is needed, a half, a quarter or an eighth of the size, and the luma alone.
    CMYK keeps size and colours.

    Raises:
        ValueError: the picture is damaged.
    """
    mode, size, scaled = jpeg.mode, jpeg.size, {}
    if detail and mode != "CMYK":
        factor = detail.factor(size)
        mode = "L" if detail.is_grey else mode
        size = (-(-size[0] // factor), -(-size[1] // factor))
        scaled = {"min_width": size[0], "min_height": size[1]}
    layout, raw = {"L": ("GRAY", "L"), "CMYK": ("CMYK", "CMYK;I")}.get(mode, ("RGBX",) * 2)
    # As large as the header that was checked, whatever the file contains. The picture uses this
    # memory.
    buffer = np.empty((size[1], size[0], 1 if mode == "L" else 4), dtype=np.uint8)
    try:
        simplejpeg.decode_jpeg(
            jpeg.without_junk(content), layout, buffer=buffer, strict=True, **scaled
        )
    except ValueError as error:
        if "subsampling" in str(error):  # rare, unsupported by TurboJPEG
            return _load_by_pillow(jpeg, content)
        if not _is_padding(str(error), jpeg, content):
            raise
    return Image.frombuffer(mode, size, buffer, "raw", raw, 0, 1)


def _load_by_pillow(jpeg: Jpeg, content: bytes) -> Image.Image:
    """Pillow misses damage."""
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(jpeg.without_metadata(content)))
    image.load()
    return image


def _is_padding(warning: str, jpeg: Jpeg, content: bytes) -> bool:
    """Whether the only fault is padding before the end marker, as some cameras write it.

    libjpeg reports the first of its warnings, and this one when all rows have been read. Other
    bytes there are what is left over where a scan is damaged: of 338 damaged photos with a warning,
    295 had only this one, and none of them ended in a byte that repeats.
    """
    found = EXTRANEOUS.search(warning)
    if found is None:
        return False
    padding = content[: jpeg.end + 1].rstrip(b"\xff")[-max(2, int(found[1])) :]
    return len(set(padding)) == 1
