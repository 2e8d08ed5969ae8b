"""Images that one core decodes and resizes per second, beside a reference of nothing but Pillow.

    PYTHONPATH=. .venv/bin/python bench/pixels.py [--pairs 15] [--json FILE]

Photographs beside one another, a bit enlarged, so that they are about as sharp as a camera's; as
JPEG of quality 90 and as PNG, prepared for 224×224. The two take turns, picture by picture, and the
ratio of each pair counts: the median with a 95 % interval of the median. CPU time of the thread.
"""

from __future__ import annotations

import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from sklearn.datasets import load_sample_image

from bench.ratios import median
from convoy.v1 import classifier_pb2 as pb
from server.preprocessing import detail, prepare
from server.preprocessing.decode import decode

SIZES = [(500, 375), (640, 480), (1600, 1200), (4000, 3000)]
FORMATS = {"JPEG": {"quality": 90}, "PNG": {}}
PREPROCESSING = pb.Preprocessing(photo=pb.Photo(resize=256, crop=224))
ENLARGED = 1.5


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


def by_the_gateway(content: bytes) -> object:
    image = decode(
        content,
        max_bytes=1 << 30,
        max_pixels=1 << 30,
        detail=detail(PREPROCESSING, is_exact=False),
    )
    return prepare(image.pixels, PREPROCESSING, (image.width, image.height))


def cpu_s(work: Callable[[bytes], object], content: bytes) -> float:
    before_s = time.thread_time()
    work(content)
    return time.thread_time() - before_s


def main(
    pairs: Annotated[int, typer.Option(min=1, help="Measured in turns.")] = 15,
    file: Annotated[Path | None, typer.Option("--json", help="Write the figures here too.")] = None,
) -> None:
    """Compare the gateway's preparation of photos with Pillow's."""
    rows = []
    print(f"{'picture':16} {'Pillow/s':>9} {'gateway/s':>10}   times (95 % interval)")
    contents = {
        f"{size[0]}×{size[1]} {file_format}": picture(size, file_format)
        for size in SIZES
        for file_format in FORMATS
    }
    # After the largest, the C library keeps pages for the next picture, as in a gateway that runs.
    for content in contents.values():
        cpu_s(by_pillow, content)
        cpu_s(by_the_gateway, content)
    for name, content in contents.items():
        measured = [
            (cpu_s(by_pillow, content), cpu_s(by_the_gateway, content)) for _ in range(pairs)
        ]
        pillow_s, gateway_s = (statistics.median(each) for each in zip(*measured, strict=True))
        times = median([pillow / ours for pillow, ours in measured])
        rows.append({"picture": name, "pillow_s": pillow_s, "gateway_s": gateway_s, "times": times})
        print(f"{name:16} {1 / pillow_s:9.1f} {1 / gateway_s:10.1f}   {times}")
    if file:
        file.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    typer.run(main)
