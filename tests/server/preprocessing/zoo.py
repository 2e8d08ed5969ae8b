"""Image files of every kind, made here and now, and what must come of each.

`zoo()` gives them all. The pixels that a file must give are those of the array that it was made
from, never those of a decoder. test_zoo.py decodes and sends them, fuzz.py mutates them.
"""

from __future__ import annotations

import base64
import functools
import gzip
import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

Pixels = npt.NDArray[Any]
Tags = dict[int, tuple[int, ...]]

MAX_PIXELS = 1_000_000  # what the tests accept; the gateway of the tests, too
MAX_BYTES = 16 << 20

ANSWER = "ANSWER"
CORRUPT = "IMAGE_DECODE_FAILED"
UNSUPPORTED = "IMAGE_FORMAT_UNSUPPORTED"
TOO_LARGE = "IMAGE_TOO_LARGE"
MALFORMED = "MALFORMED_REQUEST"

ORIENTATION = 274
LOSSY = 2.0  # grey levels, on average over the picture; at quality 95 it is 1.3 at most
FINEST: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95},
    "MPO": {"quality": 95},
    "WEBP": {"lossless": True},
}
PAPER, INK = np.array([245, 235, 215]), np.array([30, 20, 110])


@dataclass(frozen=True)
class Specimen:
    name: str
    content: bytes
    outcomes: tuple[str, ...]  # any of them: ANSWER, or the reason of an error
    pixels: Pixels | None = (
        None  # H×W or H×W×3: what an answer was made from; None: whole is enough
    )
    tolerance: float = 0  # mean difference of a channel, in grey levels; 0: the very pixels
    is_seven: bool = False  # shows the digit, so that LeNet-5 reads a 7


@functools.cache
def seven() -> Pixels:
    """A 7 in blue ink on cream paper, 120×96×3."""
    path = Path(__file__).parents[2] / "data" / "digit-7.png"
    grey = np.asarray(Image.open(path).convert("L").resize((96, 120), Image.Resampling.BOX))
    light = np.clip((grey.astype(float) - 60) / 120, 0, 1)[..., np.newaxis]
    return np.asarray(np.round(INK + light * (PAPER - INK)), dtype=np.uint8)


@functools.cache
def zoo() -> dict[str, Specimen]:
    specimens: dict[str, Specimen] = {}
    for part in (
        modes,
        orientations,
        shapes,
        companions,
        cut_off,
        cut_and_ended,
        damaged,
        bombs,
        costly,
        padded,
        mistakes,
        others,
    ):
        for specimen in part():
            assert specimen.name not in specimens, specimen.name
            specimens[specimen.name] = specimen
    return specimens


# ---------------------------------------------------------------- writers


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, file_format, **options)
    return content.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    size: tuple[int, int], depth: int, colour: int, stream: bytes, more: bytes = b"", lace: int = 0
) -> bytes:
    """A PNG around a zlib stream; `more` are chunks before it."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, lace))
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


def scanlines(rows: Pixels) -> bytes:
    """Unfiltered lines of a PNG; 16-bit values with the upper byte first."""
    return b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in rows)


def adam7(rows: Pixels) -> bytes:
    """Seven pictures, each of every so many-th pixel (PNG 1.2, 8.2)."""
    starts = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4))
    ends = ((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    return b"".join(
        scanlines(rows[top::down, left::across]) for left, top, across, down in starts + ends
    )


def tiff(tags: Tags, data: bytes, order: str = "<", big: bool = False) -> bytes:
    """A TIFF whose directory comes first; the strip offsets (273, 324) count from `data`."""
    count, entry, room = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
    head_bytes = 16 if big else 8
    end = head_bytes + struct.calcsize("<" + count) + len(tags) * (4 + 2 * room) + room
    values_bytes = sum(4 * len(v) for v in tags.values() if 4 * len(v) > room)
    directory, values = struct.pack(order + count, len(tags)), b""
    for tag, numbers in sorted(tags.items()):
        shift = end + values_bytes if tag in (273, 324) else 0
        packed = struct.pack(f"{order}{len(numbers)}I", *(number + shift for number in numbers))
        directory += struct.pack(order + entry, tag, 4, len(numbers))
        if len(packed) <= room:
            directory += packed.ljust(room, b"\0")
        else:
            directory += struct.pack(order + ("Q" if big else "I"), end + len(values))
            values += packed
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, 16) if big else (42, 8)))
    return mark + head + directory + bytes(room) + values + data


def grey_tiff(rows: Pixels, strips: int = 1, **options: Any) -> bytes:
    """Uncompressed 8-bit grey in as many strips."""
    height, width = rows.shape
    each = -(-height // strips)
    offsets = tuple(range(0, height * width, each * width))
    counts = tuple(min(each * width, height * width - offset) for offset in offsets)
    tags: Tags = {256: (width,), 257: (height,), 258: (8,), 259: (1,), 262: (1,), 277: (1,)}
    tags |= {273: offsets, 278: (each,), 279: counts}
    return tiff(tags | options.pop("tags", {}), rows.tobytes(), **options)


def bmp_rle8(indices: Pixels, palette: Pixels, runs: bytes | None = None, kind: int = 1) -> bytes:
    """Lines from the bottom up, each pixel a run of one; or other runs. Kind 2 is RLE4."""
    if runs is None:
        lines = (b"".join(bytes((1, i)) for i in line) + b"\0\0" for line in indices[::-1])
        runs = b"".join(lines) + b"\0\1"
    data = runs
    colours = b"".join(bytes((*rgb[::-1], 0)) for rgb in palette.tolist())
    start = 14 + 40 + len(colours)
    height, width = indices.shape
    info = (40, width, height, 1, 4 if kind == 2 else 8, kind, len(data), 0, 0, len(palette), 0)
    head = b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start)
    return head + struct.pack("<IiiHHIIiiII", *info) + colours + data


def with_segments(jpeg: bytes, segments: list[bytes]) -> bytes:
    """A JPEG with more at its beginning, after an empty comment."""
    return jpeg[:2] + b"\xff\xfe\0\2" + b"".join(segments) + jpeg[2:]


def exif_of(entries: int) -> bytes:
    """A TIFF directory of as many unknown tags, as Exif data are; big-endian, of wide numbers."""
    head = b"MM\0+" + struct.pack(">HHQQ", 8, 0, 16, entries)
    return head + b"".join(struct.pack(">HHQQ", tag % 60_000, 3, 1, 0) for tag in range(entries))


def webp_with_canvas(webp: bytes, width: int, height: int) -> bytes:
    """The picture of a simple WebP on a canvas that the extended header declares."""
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + canvas + webp[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg_in_scans(image: Image.Image, sampling: int) -> bytes:
    """A scan for each of Y, Cb and Cr, all sampled alike; Pillow writes each as a grey JPEG."""
    scans, tables = [], b""
    for number, plane in enumerate(image.convert("YCbCr").split(), 1):
        grey = encoded(plane, "JPEG", quality=95)
        frame, scan = grey.index(b"\xff\xc0"), grey.index(b"\xff\xda")
        tables = grey[20:frame] + grey[frame + 13 : scan]  # without JFIF's and the frame's header
        head = b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, number, 0, 0, 63, 0)
        scans.append(head + grey[scan + 10 : -2])
    parts = b"".join(bytes((number, sampling << 4 | sampling, 0)) for number in (1, 2, 3))
    frame_header = struct.pack(">HBHHB", 17, 8, image.height, image.width, 3) + parts
    return b"\xff\xd8" + tables + b"\xff\xc0" + frame_header + b"".join(scans) + b"\xff\xd9"


# ---------------------------------------------------------------- formats and modes


@dataclass(frozen=True)
class Sheet:
    """The 7 in the kinds of pixels that the formats have."""

    rgb: Pixels  # H×W×3
    grey: Pixels  # H×W, as the others
    bits: Pixels  # 0 or 255
    alpha: Pixels
    indices: Pixels  # into `palette`
    palette: Pixels  # 64×3

    @property
    def size(self) -> tuple[int, int]:
        return self.grey.shape[1], self.grey.shape[0]

    @property
    def by_palette(self) -> Pixels:
        return self.palette[self.indices]

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(self.rgb)

    @property
    def grey_image(self) -> Image.Image:
        return Image.fromarray(self.grey)

    @property
    def bit_image(self) -> Image.Image:
        return Image.fromarray(self.bits).convert("1")

    @property
    def palette_image(self) -> Image.Image:
        image = Image.fromarray(self.indices)
        image.putpalette(self.palette.tobytes())
        return image

    @property
    def see_through(self) -> Image.Image:
        return Image.fromarray(np.dstack([self.rgb, self.alpha]))

    @property
    def cmyk(self) -> Pixels:
        return np.dstack([255 - self.rgb, np.zeros_like(self.grey)])


@functools.cache
def sheet() -> Sheet:
    rgb = seven()
    grey = rgb[..., 1].copy()
    alpha = np.full(grey.shape, 255, dtype=np.uint8)
    alpha[:8], alpha[8:16] = 0, 128  # clear along the top, half clear below
    indexed = Image.fromarray(rgb).quantize(64)
    palette = np.array(indexed.getpalette(), dtype=np.uint8).reshape(-1, 3)
    bits = np.where(grey > 128, 255, 0).astype(np.uint8)
    return Sheet(rgb, grey, bits, alpha, np.array(indexed), palette)


def over_white(pixels: Pixels, alpha: Pixels) -> Pixels:
    share = (alpha / 255)[..., np.newaxis] if pixels.ndim == 3 else alpha / 255
    return np.round(pixels * share + 255 * (1 - share))


def upper(values: Pixels, lower: int) -> Pixels:
    """16-bit values with these upper bytes."""
    return values.astype(np.uint16) * 256 + lower


def answer(name: str, content: bytes, pixels: Pixels, tolerance: float = 0) -> Specimen:
    return Specimen(name, content, (ANSWER,), pixels, tolerance, is_seven=True)


def modes() -> Iterator[Specimen]:
    yield from simple_modes()
    yield from png_modes()
    yield from png_clear_colours()
    yield from tiff_modes()
    yield from gif_and_webp_modes()
    yield from jpeg_modes()
    yield from several_pictures()


def simple_modes() -> Iterator[Specimen]:
    it = sheet()
    for name in ("PNG", "BMP", "TIFF"):
        yield answer(f"{name} RGB", encoded(it.image, name), it.rgb)
        yield answer(f"{name} grey", encoded(it.grey_image, name), it.grey)
        yield answer(f"{name} 1-bit", encoded(it.bit_image, name), it.bits)
        yield answer(f"{name} palette", encoded(it.palette_image, name), it.by_palette)
    grey_see_through = Image.merge("LA", [it.grey_image, Image.fromarray(it.alpha)])
    for name in ("PNG", "TIFF"):
        content = encoded(it.see_through, name)
        yield answer(f"{name} RGBA", content, over_white(it.rgb, it.alpha))
        yield answer(f"{name} LA", encoded(grey_see_through, name), over_white(it.grey, it.alpha))
        content = encoded(Image.fromarray(upper(it.grey, 77)), name)
        yield answer(f"{name} 16-bit grey", content, it.grey)
    # Without a mask for it, the fourth byte of a BMP means nothing.
    yield answer("BMP of 32 bits", encoded(it.see_through, "BMP"), it.rgb)
    yield answer("BMP RLE8", bmp_rle8(it.indices, it.palette), it.by_palette)


def png_modes() -> Iterator[Specimen]:
    it = sheet()

    def made(name: str, depth: int, colour: int, data: bytes, pixels: Pixels, lace: int = 0) -> Any:
        content = png(it.size, depth, colour, zlib.compress(data), lace=lace)
        return answer(f"PNG {name}", content, pixels)

    yield made("interlaced", 8, 2, adam7(it.rgb), it.rgb, lace=1)
    yield made("interlaced grey", 8, 0, adam7(it.grey), it.grey, lace=1)
    yield made("16-bit RGB", 16, 2, scanlines(upper(it.rgb, 200)), it.rgb)
    deep = upper(np.dstack([it.rgb, it.alpha]), 255)
    yield made("16-bit RGBA", 16, 6, scanlines(deep), over_white(it.rgb, it.alpha))
    deep = upper(np.dstack([it.grey, it.alpha]), 255)
    yield made("16-bit LA", 16, 4, scanlines(deep), over_white(it.grey, it.alpha))
    nibbles = it.grey[:, 0::2] >> 4 << 4 | it.grey[:, 1::2] >> 4
    yield made("4-bit grey", 4, 0, scanlines(nibbles), (it.grey >> 4) * 17)
    # A last row of zeros looks like one that was never decoded.
    dark = np.where(it.grey > 200, 0, 255 - it.grey)
    yield made("light on black", 8, 0, scanlines(dark), dark)
    yield made("light on black, interlaced", 8, 0, adam7(dark), dark, lace=1)


def png_clear_colours() -> Iterator[Specimen]:
    """One colour that is transparent: of the ink, so that it leaves holes."""
    it = sheet()
    ink = it.rgb[60, 10].tolist()
    holes = (it.rgb == ink).all(axis=2)
    expected = np.where(holes[..., np.newaxis], 255, it.rgb)

    def made(name: str, depth: int, colour: int, rows: Pixels, key: tuple[int, ...]) -> bytes:
        more = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
        return png(it.size, depth, colour, zlib.compress(scanlines(rows)), more)

    yield answer("PNG RGB, clear colour", made("", 8, 2, it.rgb, tuple(ink)), expected)
    key = tuple(256 * value + 200 for value in ink)
    yield answer("PNG 16-bit RGB, clear colour", made("", 16, 2, upper(it.rgb, 200), key), expected)
    expected = np.where(it.grey == ink[1], 255, it.grey)
    yield answer("PNG grey, clear colour", made("", 8, 0, it.grey, (ink[1],)), expected)
    content = made("", 16, 0, upper(it.grey, 77), (256 * ink[1] + 77,))
    yield answer("PNG 16-bit grey, clear colour", content, expected)
    shares = np.full(len(it.palette), 255, dtype=np.uint8)
    shares[it.indices[60, 10]], shares[it.indices[0, 0]] = 0, 100
    content = encoded(it.palette_image, "PNG", transparency=shares.tobytes())
    yield answer("PNG palette with alpha", content, over_white(it.by_palette, shares[it.indices]))


def tiff_modes() -> Iterator[Specimen]:
    it = sheet()
    deep = upper(it.grey, 77)
    big_endian = Image.frombytes("I;16B", it.size, deep.astype(">u2").tobytes())
    yield answer("TIFF 16-bit grey, big-endian", encoded(big_endian, "TIFF"), it.grey)
    content = encoded(Image.fromarray(deep.astype(np.int32)), "TIFF")
    yield answer("TIFF 32-bit integers of 16 bits", content, it.grey)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma"):
        content = encoded(it.image, "TIFF", compression=compression)
        yield answer(f"TIFF RGB {compression}", content, it.rgb)
    content = encoded(it.image, "TIFF", compression="jpeg", quality=95)
    yield answer("TIFF RGB jpeg", content, it.rgb, LOSSY)
    yield answer("TIFF fax", encoded(it.bit_image, "TIFF", compression="group4"), it.bits)
    cmyk = Image.frombytes("CMYK", it.size, it.cmyk.tobytes())
    yield answer("TIFF CMYK", encoded(cmyk, "TIFF"), it.rgb)
    yield answer("TIFF in strips", grey_tiff(it.grey, strips=7), it.grey)
    yield answer("TIFF big-endian", grey_tiff(it.grey, strips=3, order=">"), it.grey)
    yield answer("BigTIFF", grey_tiff(it.grey, strips=3, big=True), it.grey)
    yield answer("TIFF white is zero", grey_tiff(255 - it.grey, tags={262: (0,)}), it.grey)
    area = it.grey.size
    tags = {256: it.size[:1], 257: it.size[1:], 259: (1,), 262: (2,), 277: (3,), 278: it.size[1:]}
    planes = {258: (8,) * 3, 284: (2,), 273: (0, area, 2 * area), 279: (area,) * 3}
    yield answer("TIFF in planes", tiff(tags | planes, it.rgb.transpose(2, 0, 1).tobytes()), it.rgb)
    together = {258: (16,) * 3, 273: (0,), 279: (6 * area,)}
    yield answer("TIFF 16-bit RGB", tiff(tags | together, upper(it.rgb, 99).tobytes()), it.rgb)


def gif_and_webp_modes() -> Iterator[Specimen]:
    it = sheet()
    yield answer("GIF", encoded(it.palette_image, "GIF"), it.by_palette)
    yield answer("GIF grey", encoded(it.grey_image, "GIF"), it.grey)
    yield answer("GIF, plain lines", encoded(it.palette_image, "GIF", interlace=0), it.by_palette)
    ink = int(it.indices[60, 10])
    content = encoded(it.palette_image, "GIF", transparency=ink)
    expected = np.where((it.indices == ink)[..., np.newaxis], 255, it.by_palette)
    yield answer("GIF with a clear colour", content, expected)
    yield answer("WebP", encoded(it.image, "WEBP", quality=95), it.rgb, LOSSY)
    yield answer("WebP lossless", encoded(it.image, "WEBP", lossless=True), it.rgb)
    expected = over_white(it.rgb, it.alpha)
    content = encoded(it.see_through, "WEBP", lossless=True, exact=True)
    yield answer("WebP lossless RGBA", content, expected)
    yield answer("WebP RGBA", encoded(it.see_through, "WEBP", quality=95), expected, LOSSY)


def jpeg_modes() -> Iterator[Specimen]:
    it = sheet()
    kinds: dict[str, dict[str, Any]] = {
        "4:2:0": {},
        "4:2:2": {"subsampling": 1},
        "4:4:4": {"subsampling": 0},
        "stored as RGB": {"keep_rgb": True},
        "progressive": {"progressive": True},
        "with restarts": {"restart_marker_blocks": 2},
    }
    for name, options in kinds.items():
        content = encoded(it.image, "JPEG", quality=95, **options)
        yield answer(f"JPEG {name}", content, it.rgb, LOSSY)
    yield answer("JPEG grey", encoded(it.grey_image, "JPEG", quality=95), it.grey, LOSSY)
    cmyk = Image.frombytes("CMYK", it.size, it.cmyk.tobytes())
    yield answer("JPEG CMYK", encoded(cmyk, "JPEG", quality=95), it.rgb, LOSSY)
    inverted = np.ascontiguousarray(255 - it.cmyk)  # as Adobe has it
    content = simplejpeg.encode_jpeg(inverted, 95, colorspace="CMYK", colorsubsampling="444")
    yield answer("JPEG YCCK", content, it.rgb, LOSSY)
    yield answer("JPEG in three scans", jpeg_in_scans(it.image, 1), it.rgb, LOSSY)
    yield answer("JPEG sampled as none is", jpeg_in_scans(it.image, 2), it.rgb, LOSSY)


def several_pictures() -> Iterator[Specimen]:
    it = sheet()
    others = [Image.new("RGB", it.size, colour) for colour in ("red", "black")]
    for name in ("GIF", "PNG", "TIFF", "WEBP", "MPO"):
        image, pixels = (it.palette_image, it.by_palette) if name == "GIF" else (it.image, it.rgb)
        options = FINEST.get(name, {})
        content = encoded(image, name, save_all=True, append_images=others, **options)
        tolerance = LOSSY if name == "MPO" else 0
        yield answer(f"{name} of several pictures", content, pixels, tolerance)


def orientations() -> Iterator[Specimen]:
    """How a camera held each way stores the upright picture: the inverse of what a reader does."""
    rgb = seven()
    stored = {
        1: rgb,
        2: rgb[:, ::-1],
        3: rgb[::-1, ::-1],
        4: rgb[::-1],
        5: rgb.transpose(1, 0, 2),
        6: np.rot90(rgb),
        7: rgb[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(rgb, -1),
    }
    for name in ("JPEG", "PNG", "WEBP", "TIFF"):
        for orientation, pixels in stored.items():
            exif = Image.Exif()
            exif[ORIENTATION] = orientation
            picture = Image.fromarray(np.ascontiguousarray(pixels))
            content = encoded(picture, name, exif=exif.tobytes(), **FINEST.get(name, {}))
            yield answer(f"{name} EXIF {orientation}", content, rgb, tolerance_of(name))


def tolerance_of(name: str) -> float:
    return LOSSY if name == "JPEG" else 0


def shapes() -> Iterator[Specimen]:
    random = np.random.default_rng(0)
    for width, height in ((1, 1), (1, 5000), (5000, 1), (7, 3), (1000, 1000)):
        pixels = np.repeat(random.integers(0, 256, (height, width, 1), dtype=np.uint8), 3, axis=2)
        for name in ("PNG", "BMP", "TIFF", "JPEG", "WEBP") if width < 1000 else ("PNG", "JPEG"):
            content = encoded(Image.fromarray(pixels), name, **FINEST.get(name, {}))
            title, tolerance = f"{name} of {width}x{height}", tolerance_of(name)
            yield Specimen(title, content, (ANSWER,), pixels, tolerance)


def companions() -> Iterator[Specimen]:
    """Sound pictures with something beside them: files that are two things, and colour profiles."""
    it = sheet()
    guests = {"ZIP": b"PK\3\4" + bytes(500), "script": b"*/=1;alert(document.domain);//" * 9}
    for name in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"):
        image, pixels = (it.palette_image, it.by_palette) if name == "GIF" else (it.image, it.rgb)
        content = encoded(image, name, **FINEST.get(name, {}))
        for guest, more in guests.items():
            title = f"{name} that is a {guest}, too"
            yield answer(title, content + more, pixels, tolerance_of(name))
        yield Specimen(f"PDF, then {name}", b"%PDF-1.7\n" + content, (UNSUPPORTED,))
        if name not in ("GIF", "BMP"):
            profile = b"no profile that anything could apply" * 3
            content = encoded(image, name, icc_profile=profile, **FINEST.get(name, {}))
            yield answer(f"{name} with a profile", content, pixels, tolerance_of(name))


# ---------------------------------------------------------------- what must be refused


def whole_files() -> dict[str, bytes]:
    image = sheet().image
    files = {name: encoded(image, name) for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")}
    files["JPEG progressive"] = encoded(image, "JPEG", progressive=True)
    files["TIFF deflate"] = encoded(image, "TIFF", compression="tiff_adobe_deflate")
    files["WEBP lossless"] = encoded(image, "WEBP", lossless=True)
    return files


def cut_off() -> Iterator[Specimen]:
    files = whole_files()
    for name, content in files.items():
        for tenth in range(1, 10):
            cut = content[: len(content) * tenth // 10]
            yield Specimen(f"{name} cut at {tenth}0%", cut, (CORRUPT,))
    yield Specimen("JPEG without its end", files["JPEG"][:-2], (CORRUPT,))
    yield Specimen("PNG without its end", files["PNG"][:-12], (CORRUPT,))


def cut_and_ended() -> Iterator[Specimen]:
    """Cut in the middle, and sealed with what a whole file ends in: all that is there is sound."""
    it, files = sheet(), whole_files()
    for tenth in (4, 6, 9):
        jpeg = files["JPEG"][: len(files["JPEG"]) * tenth // 10] + b"\xff\xd9"
        yield Specimen(f"JPEG ended after {tenth}0%", jpeg, (CORRUPT,))
        for lace, data in enumerate((scanlines(it.rgb), adam7(it.rgb))):
            stream = zlib.compress(data[: len(data) * tenth // 10])
            content = png(it.size, 8, 2, stream, lace=lace)
            yield Specimen(f"PNG ended after {tenth}0%, interlace {lace}", content, (CORRUPT,))
        for name in ("WEBP", "WEBP lossless"):
            part = files[name][20:][: len(files[name]) * tenth // 20 * 2]
            body = b"WEBP" + files[name][12:16] + struct.pack("<I", len(part)) + part
            content = b"RIFF" + struct.pack("<I", len(body)) + body
            yield Specimen(f"{name} ended after {tenth}0%", content, (CORRUPT,))
    # Of an odd height, the last row belongs to an earlier one of the seven pictures.
    stream = zlib.compress(adam7(it.rgb[:-1])[: -4 * (1 + 96 * 3)])
    content = png((96, 119), 8, 2, stream, lace=1)
    yield Specimen("PNG interlaced, of odd height, ended early", content, (CORRUPT,))
    stream = zlib.compress(scanlines(np.zeros_like(it.grey))[: -(1 + 96)])
    yield Specimen("PNG, black, one row short", png(it.size, 8, 0, stream), (CORRUPT,))
    strip = 18 * 96  # the last of seven is missing
    tags = {273: tuple(range(0, 6 * strip, strip)), 279: (strip,) * 6}
    for order, title in (("<", "little-endian"), (">", "big-endian")):
        content = grey_tiff(it.grey, strips=7, tags=tags, order=order)
        yield Specimen(f"TIFF without its last strip, {title}", content, (CORRUPT,))
    gif = files["GIF"]
    yield Specimen("GIF ended after 50%", gif[: len(gif) // 2] + b"\0;", (CORRUPT,))
    rle = bmp_rle8(it.indices, it.palette)
    yield Specimen("BMP RLE8 ended after 50%", rle[: len(rle) // 2] + b"\0\1", (CORRUPT,))


def damaged() -> Iterator[Specimen]:
    """One bit flipped, at ten places: PNG's checksums tell; elsewhere a whole picture may do."""
    for name, content in whole_files().items():
        outcomes = (CORRUPT,) if name == "PNG" else (ANSWER, CORRUPT, UNSUPPORTED, TOO_LARGE)
        for tenth in range(10):
            flipped = bytearray(content)
            flipped[12 + (len(content) - 12) * tenth // 10] ^= 1 << tenth % 8
            yield Specimen(f"{name}, a bit flipped at {tenth}0%", bytes(flipped), outcomes)
    checksum = bytearray(whole_files()["PNG"])
    checksum[-13] ^= 1  # of the pixels, whose stream is sound
    yield Specimen("PNG with a wrong checksum", bytes(checksum), (CORRUPT,))
    for lace, data in enumerate((scanlines(sheet().rgb), adam7(sheet().rgb))):
        stream = bytearray(zlib.compress(data))
        stream[-1] ^= 1  # the checksum of its rows, in a chunk that fits its own
        content = png(sheet().size, 8, 2, bytes(stream), lace=lace)
        yield Specimen(f"PNG with a wrong checksum of its rows, {lace}", content, (CORRUPT,))
    jpeg = encoded(sheet().image, "JPEG")
    middle = len(jpeg) * 6 // 10
    zeros = jpeg[:middle] + bytes(200) + jpeg[middle + 200 :]
    yield Specimen("JPEG with zeros in its middle", zeros, (CORRUPT,))
    yield Specimen("JPEG without its middle", jpeg[:middle] + jpeg[middle + 100 :], (CORRUPT,))


def bombs() -> Iterator[Specimen]:
    """Small files that ask for much."""
    for part in (png_bombs, webp_bombs, gif_bombs, jpeg_bombs, tiff_bombs):
        for name, content, outcome in part():
            yield Specimen(f"bomb: {name}", content, (outcome,))
    it = sheet()
    stream = zlib.compress(scanlines(it.rgb) + bytes(1 << 25), 9)
    content = png(it.size, 8, 2, stream)
    yield answer("bomb: PNG with 32 MB after its rows", content, it.rgb)
    size = struct.pack("<ii", 60_000, 60_000)
    bmp = encoded(it.image, "BMP")
    yield Specimen("bomb: BMP", bmp[:18] + size + bmp[26:], (TOO_LARGE,))


Bombs = Iterator[tuple[str, bytes, str]]


@functools.cache
def zeros() -> bytes:
    """32 MB in 33 kB."""
    return zlib.compress(bytes(1 << 25), 9)


def png_bombs() -> Bombs:
    yield "PNG of 3.6 gigapixels", png((60_000, 60_000), 8, 2, zeros()), TOO_LARGE
    yield "PNG of 1001x1000 pixels", png((1001, 1000), 8, 0, zeros()), TOO_LARGE
    it = sheet()
    for name in (b"zTXt", b"iCCP"):
        guest = chunk(name, b"key\0\0" + zeros())
        content = png(it.size, 8, 2, zlib.compress(scanlines(it.rgb)), guest * 10)
        yield f"PNG with ten {name.decode()} of 32 MB", content, ANSWER


def webp_bombs() -> Bombs:
    webp, lossless = (encoded(sheet().image, "WEBP", lossless=lossless) for lossless in (0, 1))
    yield "WebP canvas", webp_with_canvas(webp, 16_000, 16_000), TOO_LARGE
    yield "WebP canvas of 4.3 gigapixels", webp_with_canvas(webp, 65_535, 65_535), TOO_LARGE
    yield "WebP lossy", webp[:26] + struct.pack("<HH", 16_383, 16_383) + webp[30:], TOO_LARGE
    yield "WebP lossless", lossless[:21] + b"\xff\xff\xff\x0f" + lossless[25:], TOO_LARGE


def gif_bombs() -> Bombs:
    frame = b"," + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0) + b"\2\1\4\0;"
    for name, side in (("GIF screen", 65_535), ("GIF frame larger than its screen", 10)):
        screen = struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6)
        yield name, b"GIF89a" + screen + frame, TOO_LARGE


def jpeg_bombs() -> Bombs:
    jpeg = encoded(sheet().image, "JPEG")
    at = jpeg.index(b"\xff\xc0") + 5
    yield "JPEG", jpeg[:at] + struct.pack(">HH", 65_500, 65_500) + jpeg[at + 4 :], TOO_LARGE
    progressive = encoded(sheet().image, "JPEG", progressive=True)
    last = progressive[progressive.rindex(b"\xff\xda") : -2]
    yield "JPEG of 1000 scans", progressive[:-2] + last * 1000 + b"\xff\xd9", TOO_LARGE


def tiff_bombs() -> Bombs:
    grey = sheet().grey
    yield "TIFF", grey_tiff(grey, tags={256: (60_000,), 257: (60_000,)}), TOO_LARGE
    many: Tags = {273: (0,) * 200_000, 279: (0,) * 200_000}
    yield "TIFF of 200,000 strips", grey_tiff(grey, tags=many), TOO_LARGE
    yield "BigTIFF of 200,000 strips", grey_tiff(grey, big=True, tags=many), TOO_LARGE
    tags: Tags = {256: (16,), 257: (16,), 258: (8,), 259: (8,), 262: (1,), 277: (1,)}
    tile = {322: (40_000,), 323: (40_000,), 324: (0,), 325: (len(zeros()),)}
    yield "TIFF with a tile of 1.6 gigapixels", tiff(tags | tile, zeros()), TOO_LARGE
    # The strip is a picture of zeros; what comes after its 256 bytes is not asked for.
    strip = {273: (0,), 278: (1 << 30,), 279: (len(zeros()),)}
    yield "TIFF strip that inflates to 32 MB", tiff(tags | strip, zeros()), ANSWER


def costly() -> Iterator[Specimen]:
    """Files that would take much time for their bytes: refused by what is counted."""
    for part in (costly_jpegs, costly_pngs, costly_tiffs, other_costly):
        for name, content in part():
            yield Specimen(f"costly: {name}", content, (TOO_LARGE,))
    rows = {256: (10,), 257: (1900,), 258: (8,), 259: (8,), 262: (1,), 277: (1,), 278: (1,)}
    strips: Tags = {273: (0,) * 1900, 279: (400_000,) * 1900}
    overlapping = tiff(rows | strips, zlib.compress(bytes(10)).ljust(400_000, b"\0"))
    yield Specimen("costly: TIFF of overlapping strips", overlapping, (CORRUPT,))
    unlisted = tiff(rows | {273: strips[273]}, zlib.compress(bytes(10)).ljust(400_000, b"\0"))
    yield Specimen("costly: TIFF of strips without length", unlisted, (CORRUPT,))


def costly_jpegs() -> Iterator[tuple[str, bytes]]:
    jpeg = encoded(sheet().image, "JPEG")
    app1 = b"\xff\xe1\0\x12Exif\0\0" + bytes(10)
    comment = b"\xff\xfe\xff\xff" + bytes(65_533)
    fill, stuffed = b"\xff" * 2_000_000, b"\xff\0" * 11_000
    for name, segments in {
        "20,000 APP1": [app1] * 20_000,
        "1.3 MB of comments": [comment] * 20,
        "2 MB of fill bytes": [fill],
        "2 MB between segments": [bytes(2_000_000)],
        "11,000 stuffed bytes between segments": [stuffed],
    }.items():
        yield f"JPEG with {name}", with_segments(jpeg, segments)
    yield "JPEG with 20,000 APP1 after its scan", jpeg[:-2] + app1 * 20_000 + jpeg[-2:]


def costly_pngs() -> Iterator[tuple[str, bytes]]:
    it = sheet()
    stream = zlib.compress(scanlines(it.rgb))
    for name, more in {
        "20,000 chunks": chunk(b"teSt", b"") * 20_000,
        "1.2 MB of Exif": chunk(b"eXIf", exif_of(60_000)),
        "1.2 MB of text": chunk(b"tEXt", b"key\0".ljust(60_000, b"x")) * 20,
        "20,000 empty IDAT": chunk(b"IDAT", b"") * 20_000,
    }.items():
        yield f"PNG with {name}", png(it.size, 8, 2, stream, more)


def costly_tiffs() -> Iterator[tuple[str, bytes]]:
    grey = sheet().grey
    yield "TIFF of 1.2 MB of values", grey_tiff(grey, tags={282: (1,) * 300_000})
    many: Tags = dict.fromkeys(range(1000, 12_000), (1,))
    yield "TIFF of 11,000 tags", grey_tiff(grey, tags=many)
    yield "BigTIFF of 11,000 tags", grey_tiff(grey, big=True, tags=many)


def other_costly() -> Iterator[tuple[str, bytes]]:
    it = sheet()
    gif = encoded(it.palette_image, "GIF")
    at = gif.index(b",\0\0\0\0")
    for name, more in {
        "sub-blocks of one byte": b"!\xfe" + b"\1x" * 11_000 + b"\0",
        "1.2 MB of comments": (b"!\xfe" + (b"\xff" + bytes(255)) * 99 + b"\0") * 50,
        "11,000 extensions": b"!\xfe\0" * 11_000,
        "11,000 bytes between blocks": bytes(11_000),
    }.items():
        yield f"GIF with {name}", gif[:at] + more + gif[at:]
    runs = b"\0\2\0\0" * 600_000
    yield "BMP of empty runs", bmp_rle8(it.indices, it.palette, runs)
    webp = encoded(it.image, "WEBP")
    yield "WebP of 11,000 chunks", webp_with(webp, (b"teSt" + bytes(4)) * 11_000)
    exif = exif_of(60_000)
    yield "WebP with 1.2 MB of Exif", webp_with(webp, b"EXIF" + struct.pack("<I", len(exif)) + exif)


def webp_with(webp: bytes, chunks: bytes) -> bytes:
    body = webp[8:] + chunks
    return b"RIFF" + struct.pack("<I", len(body)) + body


def padded() -> Iterator[Specimen]:
    """Bytes that belong to nothing. Cameras write some before the end."""
    it = sheet()
    kinds: dict[str, dict[str, Any]] = {
        "": {},
        "progressive ": {"progressive": True},
        "grey ": {},
        "restarting ": {"restart_marker_blocks": 2},
    }
    for name, options in kinds.items():
        image, pixels = (it.grey_image, it.grey) if name == "grey " else (it.image, it.rgb)
        jpeg = encoded(image, "JPEG", quality=95, **options)
        for what, padding in {
            "12 zeros": bytes(12),
            "5000 zeros": bytes(5000),
            "zeros and fill bytes": bytes(12) + b"\xff" * 9,
            "spaces": b" " * 30,
        }.items():
            content = jpeg[:-2] + padding + jpeg[-2:]
            yield answer(f"{name}JPEG, {what} before its end", content, pixels, LOSSY)
        for what, junk in {"zeros": bytes(7), "text": b"text", "fill bytes": b"\xff" * 9}.items():
            content = with_segments(jpeg, [junk])
            content = content.replace(b"\xff\xdb", junk + b"\xff\xdb", 1)
            content = content[:-2] + bytes(12) + content[-2:]
            yield answer(f"{name}JPEG, {what} between segments", content, pixels, LOSSY)
    restarting = encoded(it.image, "JPEG", restart_marker_blocks=2)
    at = restarting.index(b"\xff\xd3")
    content = restarting[:at] + bytes(12) + restarting[at:]
    yield Specimen("JPEG, zeros before a restart marker", content, (CORRUPT,))
    jpeg = encoded(it.image, "JPEG")
    content = jpeg[:-2] + b"\x12\x34\x56\x78" * 3 + jpeg[-2:]
    yield Specimen("JPEG, leftovers before its end", content, (CORRUPT,))


def mistakes() -> Iterator[Specimen]:
    """What clients send in place of a file: told as their mistake, and not as the picture's."""
    it = sheet()
    contents = {
        "JSON": b'{"image": {"content": "aGVsbG8="}}',
        "JSON list": b" [1, 2]",
        "file name": b"photo.jpg",
        "path": b"@/home/me/My pictures/IMG_1.JPEG",
        "URL": b"https://example.org/cat.png",
        "form": b"image=@photo.jpg",
        "multipart": b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n',
        "bytes of Python": b"b'\\xff\\xd8\\xff'",
    }
    for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        file = encoded(it.image, name)
        text = base64.b64encode(file)
        contents[f"base64 of {name}"] = text
        contents[f"base64 of {name}, in lines"] = base64.encodebytes(file)
        contents[f"base64 of {name}, quoted"] = b'"' + text + b'"'
        contents[f"data: URI of {name}"] = b"data:image/x;base64," + text
        contents[f"{name} in gzip"] = gzip.compress(file)
        contents[f"{name} by curl -d"] = file.translate(None, b"\0\r\n")
    jpeg, png_file = encoded(it.image, "JPEG"), encoded(it.image, "PNG")
    contents["JPEG read as UTF-8"] = jpeg.decode(errors="replace").encode()
    contents["JPEG read as Latin-1"] = jpeg.decode("latin-1").encode()
    contents["PNG read as UTF-8"] = png_file.decode(errors="replace").encode()
    contents["PNG read as Latin-1"] = png_file.decode("latin-1").encode()
    contents["PNG with line ends of Unix"] = png_file.replace(b"\r\n", b"\n")
    contents["PNG with line ends of Windows"] = png_file.replace(b"\n", b"\r\n")
    for name, content in contents.items():
        yield Specimen(f"mistake: {name}", content, (MALFORMED,))


def kinds_of_jpeg() -> dict[str, bytes]:
    """Those that are not decoded here."""
    jpeg = encoded(sheet().image, "JPEG")
    frame = jpeg.index(b"\xff\xc0")
    names = {0xC3: "lossless", 0xC5: "hierarchical", 0xCB: "arithmetic lossless", 0xF7: "JPEG-LS"}
    contents = {
        f"{name} JPEG": jpeg[: frame + 1] + bytes((marker,)) + jpeg[frame + 2 :]
        for marker, name in names.items()
    }
    contents["JPEG of 12 bits"] = jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5 :]
    contents["JPEG of 2 components"] = jpeg[: frame + 9] + b"\2" + jpeg[frame + 10 :]
    return contents


def others() -> Iterator[Specimen]:
    yield Specimen("zero bytes", b"", (CORRUPT,))
    contents = {
        "text": b"This is no picture.\n" * 50,
        "HTML": b"<!DOCTYPE html><html><body><img src='cat.jpg'></body></html>",
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>",
        "PDF": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
        "ZIP": b"PK\3\4" + bytes(100),
        "1000 zeros": bytes(1000),
        "one byte": b"\xff",
    }
    image, grey = sheet().image, sheet().grey
    for name in ("ICO", "PPM", "TGA", "JPEG2000", "AVIF", "PCX", "SGI"):
        contents[name] = encoded(image, name)
    pictures = {
        "floats": Image.fromarray(grey.astype(np.float32) / 255),
        "32-bit integers": Image.fromarray(grey.astype(np.int32) << 16),
        "negative integers": Image.fromarray(-1 - grey.astype(np.int32)),
        "LAB": Image.new("LAB", (8, 8)),
    }
    for name, picture in pictures.items():
        contents[f"TIFF of {name}"] = encoded(picture, "TIFF")
    for name, content in (contents | kinds_of_jpeg()).items():
        yield Specimen(name, content, (UNSUPPORTED,))
    for name, content in whole_files().items():
        start = content[:12] if name.startswith("WEBP") else content[:8]
        yield Specimen(f"{name}, its first bytes alone", start, (CORRUPT,))
        yield Specimen(f"{name}, then text", start + b"I am text " * 20, (CORRUPT, TOO_LARGE))
