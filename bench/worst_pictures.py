"""The image files that cost most of those that a gateway accepts, and what each costs.

    PYTHONPATH=. .venv/bin/python bench/worst_pictures.py [--format JPEG] [--json FILE]

Every file is at the bounds of the default settings: 50 million pixels, 16 MiB, and those of
server/preprocessing. The goal is 2 s from the bytes to a network's input. CPU time is that of the
thread which does it, so that neighbours on the machine hardly count; the best of `--repeat` counts.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convoy.v1 import classifier_pb2 as pb
from server.errors import ServingError
from server.preprocessing import image_cost, prepare
from server.preprocessing.__main__ import MAX_BYTES, MAX_PIXELS
from server.preprocessing.decode import decode
from server.preprocessing.tiff import MAX_STRIP_BYTES_TIMES, PIXELS_PER_STRIP
from tests.server.preprocessing.zoo import (
    bmp_rle8,
    chunk,
    encoded,
    exif_of,
    jpeg_in_scans,
    png,
    tiff,
    with_segments,
)

MAX_STRIPS = MAX_PIXELS // PIXELS_PER_STRIP
SIDE = math.isqrt(MAX_PIXELS)
GOAL_S = 2.0
PHOTO = pb.Preprocessing(photo=pb.Photo(resize=256, crop=224))

Files = Iterator[tuple[str, Callable[[], bytes]]]


# ---------------------------------------------------------------- pictures


@functools.cache
def textured(mode: str = "RGB", levels: int = 16) -> Image.Image:
    """50 million pixels of noise: coding it takes long, and fewer levels make it smaller."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    noise = np.random.default_rng(1).integers(0, levels, (SIDE, SIDE, channels), dtype=np.uint8)
    return Image.frombytes(mode, (SIDE, SIDE), noise.tobytes())


def plain(mode: str) -> Image.Image:
    return Image.new(mode, (SIDE, SIDE))


def jpegs() -> Files:
    for name, options in {
        "4:4:4": {"subsampling": 0},
        "4:2:0": {},
        "progressive": {"progressive": True, "subsampling": 0},
        "restarts": {"restart_marker_blocks": 1},
    }.items():
        yield (
            f"{name}, noise",
            functools.partial(encoded, textured(), "JPEG", quality=60, **options),
        )
    yield "CMYK", lambda: encoded(textured("CMYK"), "JPEG", quality=40)
    yield "scans", lambda: progressive_in_scans(image_cost.MAX_SCAN_PIXELS // MAX_PIXELS)
    yield "sampled as none is", lambda: jpeg_in_scans(textured(levels=4), 2)
    segments = [b"\xff\xe1" + struct.pack(">H", 100) + b"Exif\0\0" + bytes(92)] * 9900
    yield "Exif in 9,900 segments", lambda: with_segments(encoded(textured(), "JPEG"), segments)
    fill = [b"\xff" * 500_000 + b"\xff\xfe\0\2"] * 2
    yield "fill bytes", lambda: with_segments(encoded(textured(), "JPEG"), fill)


def progressive_in_scans(count: int) -> bytes:
    """More scans than there should be: refused as damaged, but after they have been decoded."""
    content = encoded(textured(levels=4), "JPEG", progressive=True)
    more = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + more * (count - content.count(b"\xff\xda")) + content[-2:]


def pngs() -> Files:
    for name, depth, colour, channels in (
        ("RGB", 8, 2, 3),
        ("RGBA", 8, 6, 4),
        ("16-bit RGB", 16, 2, 3),
        ("16-bit grey", 16, 0, 1),
    ):
        row = b"\4" + bytes(SIDE * channels * depth // 8)  # Paeth: the dearest filter
        yield name, functools.partial(png_of_rows, row, depth, colour)
    yield "palette with alpha", lambda: encoded(plain("P"), "PNG", transparency=b"\1\2")
    yield "noise", lambda: encoded(textured("L", levels=2), "PNG", compress_level=1)
    yield "Exif", lambda: png((1, 1), 8, 0, zlib.compress(b"\0\0"), chunk(b"eXIf", exif_of(52_000)))
    yield "chunks", lambda: png((1, 1), 8, 0, zlib.compress(b"\0\0"), chunk(b"teSt", b"") * 9990)
    yield "profiles", lambda: png((1, 1), 8, 0, zlib.compress(b"\0\0"), bomb_chunks(b"iCCP"))


def png_of_rows(row: bytes, depth: int, colour: int) -> bytes:
    stream = zlib.compressobj(1)
    data = b"".join(stream.compress(row) for _ in range(SIDE)) + stream.flush()
    return png((SIDE, SIDE), depth, colour, data)


def bomb_chunks(name: bytes) -> bytes:
    return chunk(name, b"key\0\0" + zlib.compress(bytes(1_000_000), 9)) * 950


def webps() -> Files:
    less = textured(levels=2).crop((0, 0, SIDE, SIDE * 8 // 10))
    yield "lossless", lambda: encoded(less, "WEBP", lossless=True, method=0)
    yield "lossy", lambda: encoded(textured(levels=128), "WEBP", quality=10, method=0)
    see_through = Image.merge("RGBA", [*less.split(), less.getchannel(0)])
    yield "lossless RGBA", lambda: encoded(see_through, "WEBP", lossless=True, method=0)


def gifs() -> Files:
    noise = textured("L", levels=2)
    noise.putpalette(bytes(range(256)) * 3)
    yield "noise", lambda: encoded(noise, "GIF", interlace=1)
    yield "clear colour", lambda: encoded(noise, "GIF", transparency=1)
    comment = b"!\xfe" + b"\1x" * 9900 + b"\0"
    small = encoded(Image.new("L", (1, 1)), "GIF")
    yield "sub-blocks", lambda: small.replace(b",", comment + b",", 1)


def bmps() -> Files:
    side = math.isqrt(MAX_PIXELS // image_cost.RLE_SHARE)
    palette = np.zeros((2, 3), dtype=np.uint8)
    indices = np.zeros((side, side), dtype=np.uint8)
    yield "RLE of ends of lines", lambda: bmp_rle8(indices, palette, b"\1\0\0\0" * side)
    runs = b"\1\0" * (image_cost.MAX_RLE_BYTES // 2 - 100)
    wide = indices[:1].repeat(side // 2, axis=1)[:, : len(runs) // 2]
    yield "RLE of single pixels", lambda: bmp_rle8(wide, palette, runs)
    line = b"\xff\0" * (side // 255) + bytes((side % 255, 0, 0, 0))
    yield "RLE4", lambda: bmp_rle8(indices, palette, line * side, kind=2)
    yield "bits", lambda: encoded(plain("1"), "BMP")


def tiffs() -> Files:
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma"):
        noise = textured(levels=2).crop((0, 0, SIDE, SIDE * 6 // 10))
        noise = plain("RGB") if compression == "packbits" else noise
        save = functools.partial(encoded, noise, "TIFF", compression=compression)
        yield compression, save
    yield "jpeg", lambda: encoded(textured(), "TIFF", compression="jpeg", quality=50)
    fax = textured("L", levels=2).point(lambda value: 255 * value).convert("1")
    yield "group4", lambda: encoded(fax.crop((0, 0, SIDE, SIDE // 2)), "TIFF", compression="group4")
    yield "strips", lambda: striped(1, bytes(500))
    yield "deflated strips", lambda: striped(8, zlib.compress(bytes(500), 9))
    overlap = zlib.compress(bytes(500), 9).ljust(3 * MAX_BYTES // MAX_STRIPS, b"\0")
    yield "overlapping strips", lambda: striped(8, overlap)
    yield "rationals", tiff_with_rationals


def striped(compression: int, strip: bytes) -> bytes:
    """As many strips as are accepted, all of them at one place, in a file as long as it takes."""
    tags: dict[int, tuple[int, ...]] = {256: (500,), 257: (MAX_STRIPS,), 258: (8,), 262: (1,)}
    tags |= {259: (compression,), 277: (1,), 278: (1,)}
    lists = {273: (0,) * MAX_STRIPS, 279: (len(strip),) * MAX_STRIPS}
    rest = max(0, MAX_STRIPS * len(strip) // MAX_STRIP_BYTES_TIMES - 8 * MAX_STRIPS)
    return tiff(tags | lists, strip.ljust(min(rest, MAX_BYTES - 9 * MAX_STRIPS), b"\0"))


def tiff_with_rationals() -> bytes:
    """The resolution, which Pillow reads, is a list of rationals."""
    tags: dict[int, tuple[int, ...]] = {256: (1,), 257: (1,), 258: (8,), 259: (1,), 262: (1,)}
    values = tuple(range(260_000))
    content = tiff(tags | {273: (0,), 278: (1,), 279: (1,), 282: values}, b"\0")
    listed = struct.pack("<HHI", 282, 4, len(values))
    return content.replace(listed, struct.pack("<HHI", 282, 5, len(values) // 2))


FORMATS: dict[str, Callable[[], Files]] = {
    "JPEG": jpegs,
    "PNG": pngs,
    "WEBP": webps,
    "GIF": gifs,
    "BMP": bmps,
    "TIFF": tiffs,
}


# ---------------------------------------------------------------- what is measured


def measure(content: bytes, repeat: int) -> tuple[float, str]:
    """Seconds of CPU time, and what came of it."""
    times_s = []
    for _ in range(repeat):
        began_s = time.thread_time()
        try:
            image = decode(content, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)
            prepare(image.pixels, PHOTO)
            outcome = f"{image.width}×{image.height}"
        except ServingError as error:
            outcome = f"{error.reason}: {error.message}"
        times_s.append(time.thread_time() - began_s)
    return min(times_s), outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--format", choices=FORMATS, help="this one alone")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print(f"{'CPU s':>6} {'MB':>6}  format, file, outcome")
    for name in [options.format] if options.format else FORMATS:
        for kind, build in FORMATS[name]():
            content = build()
            cpu_s, outcome = measure(content, options.repeat)
            rows.append({"format": name, "file": kind, "cpu_s": cpu_s, "outcome": outcome})
            print(
                f"{cpu_s:6.2f} {len(content) / 1e6:6.2f}  {name} {kind}: {outcome[:150]}",
                flush=True,
            )
        dearest = max((row for row in rows if row["format"] == name), key=lambda row: row["cpu_s"])
        verdict = "within" if dearest["cpu_s"] <= GOAL_S else "beyond"
        print(f"{'':14} {name}: {dearest['cpu_s']:.2f} s, {verdict} the goal of {GOAL_S:g} s")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
