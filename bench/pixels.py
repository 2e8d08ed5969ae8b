"""Images that one core decodes and resizes per second, beside a reference of nothing but Pillow.

    PYTHONPATH=. .venv/bin/python bench/pixels.py [--before CHECKOUT] [--pairs 15] [--json FILE]

With --before the reference is the code of another checkout.

Photographs beside one another, a bit enlarged, so that they are about as sharp as a camera's; as
JPEG of quality 90 and as PNG, prepared for 224×224. The two take turns, picture by picture, and the
ratio of each pair counts: the median with a 95 % interval of the median. CPU time of the thread.
"""

from __future__ import annotations

import io
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from sklearn.datasets import load_sample_image

import server.preprocessing
import server.preprocessing.decode
from bench.checkouts import load
from bench.ratios import Median, median
from convoy.v1 import classifier_pb2 as pb

PREPARATION = ("server.preprocessing", "server.preprocessing.decode")
SIZES = [(500, 375), (640, 480), (1600, 1200), (4000, 3000)]
FORMATS = {"JPEG": {"quality": 90}, "PNG": {}}
PREPROCESSING = pb.Preprocessing(photo=pb.Photo(resize=256, crop=224))
ENLARGED = 1.5
Prepare = Callable[[bytes], object]


def picture(size: tuple[int, int], file_format: str) -> bytes:
    tiles = []
    for name in ("china.jpg", "flower.jpg"):
        tile = Image.fromarray(load_sample_image(name))
        enlarged = [round(ENLARGED * side) for side in tile.size]
        tiles.append(tile.resize((enlarged[0], enlarged[1]), Image.Resampling.BICUBIC))
    whole = Image.new("RGB", size)
    width, height = tiles[0].size
    for column in range(-(-size[0] // width)):
        for row in range(-(-size[1] // height)):
            whole.paste(tiles[(column + row) % 2], (column * width, row * height))
    content = io.BytesIO()
    whole.save(content, file_format, **FORMATS[file_format])
    return content.getvalue()


def by_pillow(content: bytes) -> object:
    image = Image.open(io.BytesIO(content)).convert("RGB")
    scale = 256 / min(image.size)
    size = (int(image.width * scale), int(image.height * scale))
    left, top = (round((side - 224) / 2) for side in size)
    box = (left, top, left + 224, top + 224)
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR).crop(box))


def preparation_of(preparing: ModuleType, decoding: ModuleType) -> Prepare:
    """That of the gateway with these modules, which PREPARATION names."""
    limits = {"max_bytes": 1 << 30, "max_pixels": 1 << 30}

    def prepare(content: bytes) -> object:
        detail = preparing.detail(PREPROCESSING, is_exact=False)
        image = decoding.decode(content, **limits, detail=detail)
        return preparing.prepare(image.pixels, PREPROCESSING, (image.width, image.height))

    def all_pixels(content: bytes) -> object:
        return preparing.prepare(decoding.decode(content, **limits).pixels, PREPROCESSING)

    # Earlier code decodes every pixel.
    return prepare if hasattr(preparing, "detail") else all_pixels


by_the_gateway = preparation_of(server.preprocessing, server.preprocessing.decode)


def cpu_s(work: Prepare, content: bytes) -> float:
    before_s = time.thread_time()
    work(content)
    return time.thread_time() - before_s


def compare(
    reference: Prepare, contents: dict[str, bytes], pairs: int
) -> Iterator[tuple[str, float, float, Median]]:
    """Seconds of the reference and of the gateway, and how many times as fast it is."""
    # After the largest, the C library keeps pages for the next picture, as in a gateway that runs.
    for content in contents.values():
        cpu_s(reference, content)
        cpu_s(by_the_gateway, content)
    for name, content in contents.items():
        measured = [
            (cpu_s(reference, content), cpu_s(by_the_gateway, content)) for _ in range(pairs)
        ]
        reference_s, gateway_s = (statistics.median(each) for each in zip(*measured, strict=True))
        yield name, reference_s, gateway_s, median([theirs / ours for theirs, ours in measured])


def main(
    before: Annotated[Path | None, typer.Option(help="Compare with another checkout.")] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Measured in turns.")] = 15,
    file: Annotated[Path | None, typer.Option("--json", help="Write the figures here too.")] = None,
) -> None:
    """Compare the gateway's preparation of photos with Pillow's, or with that of a checkout."""
    reference = preparation_of(*load(before.resolve(), *PREPARATION)) if before else by_pillow
    title = "before" if before else "Pillow"
    contents = {
        f"{size[0]}×{size[1]} {file_format}": picture(size, file_format)
        for size in SIZES
        for file_format in FORMATS
    }
    rows = []
    print(f"{'picture':16} {f'{title}/s':>9} {'gateway/s':>10}   times (95 % interval)")
    for name, reference_s, gateway_s, times in compare(reference, contents, pairs):
        print(f"{name:16} {1 / reference_s:9.1f} {1 / gateway_s:10.1f}   {times}", flush=True)
        rows.append(
            {"picture": name, "reference_s": reference_s, "gateway_s": gateway_s, "times": times}
        )
    if file:
        file.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    typer.run(main)
