"""Held-out digits as people draw and photograph them, for measuring how well digits are read.

    for picture, label in drawn_digits():  # 720 JPEG files as bytes, the same for the same seed
        ...

Each of the 360 held-out digits appears twice, first dark on light, then light on dark, each time
redrawn: with a pen or a marker, tilted, somewhere on a large sheet with uneven light and sometimes
a shadow along its margin, then with noise and as JPEG. Training uses none of it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator

import numpy as np
from PIL import Image

from export.samples.digits import FINE, Floats, Stroke, data_set, random_fifth, resample, stroke


def drawn_digits(seed: int = 2026) -> Iterator[tuple[bytes, int]]:
    """Yields 720 JPEG files and their labels; even ones dark on light, odd ones light on dark."""
    digits, labels = data_set()
    random = np.random.default_rng(seed)
    for row in random_fifth().held_out:
        source = stroke(digits[row])
        for inverted in (False, True):
            yield draw(source, inverted, random), int(labels[row])


def draw(source: Stroke, inverted: bool, random: np.random.Generator) -> bytes:
    """Returns one picture of a digit as a grey JPEG file."""
    width, height = (int(side) for side in random.integers(200, 801, size=2))
    ink = ink_on_sheet(source, width, height, random)
    paper_level, ink_level = random.uniform(170, 250), random.uniform(10, 90)
    sheet = paper_level + (ink_level - paper_level) * ink
    sheet = sheet * light_on_sheet(width, height, random)
    sheet += random.uniform(0, 12) * random.standard_normal((height, width), dtype=np.float32)
    picture = np.clip(255 - sheet if inverted else sheet, 0, 255).round().astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "JPEG", quality=int(random.integers(60, 91)))
    return encoded.getvalue()


def ink_on_sheet(source: Stroke, width: int, height: int, random: np.random.Generator) -> Floats:
    """Returns the ink, height×width in 0..1: a pen's even stroke or a marker's uneven one."""
    length = random.uniform(0.25, 0.8) * min(width, height)  # the digit's longer side, in pixels
    scale = length / source.length
    # Half the diagonal of a tilted box would not always fit; 60 % of its side does.
    reach = 0.6 * length
    target = (random.uniform(reach, width - reach), random.uniform(reach, height - reach))
    angle = math.radians(random.uniform(-10, 10))

    def on_sheet(field: Floats, outside: float) -> Floats:
        return resample(
            field,
            size=(width, height),
            source=source.centre,
            target=target,
            scale=scale,
            angle=angle,
            outside=outside,
        )

    if random.random() < 0.5:
        distance = on_sheet(source.distance, outside=float(source.distance.max())) * scale
        edge = random.uniform(0.04, 0.15) * length / 2 - distance
    else:
        # A pixel of the data set is 12 grid points wide, and grey falls by at most 1 over it, so
        # the edge of the stroke is one or two pixels wide at any size.
        edge = (on_sheet(source.grey, outside=0) - random.uniform(0.3, 0.6)) * FINE * scale
    ink: Floats = np.clip(edge + 0.5, 0, 1)
    return ink


def light_on_sheet(width: int, height: int, random: np.random.Generator) -> Floats:
    """Returns the light on each pixel, height×width in 0..1."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    direction = random.uniform(0, 2 * math.pi)
    slope = x * math.cos(direction) + y * math.sin(direction)  # within ±1.42
    light: Floats = 1 - random.uniform(0, 0.4) * (slope / np.abs(slope).max() + 1) / 2
    if random.random() < 0.3:  # vignetting
        light *= 1 - random.uniform(0.1, 0.3) * (x**2 + y**2) / 2
    if random.random() < 0.3:  # a shadow along one margin
        margin = (x, -x, y, -y)[random.integers(4)]
        light[margin > 1 - 2 * random.uniform(0.05, 0.2)] *= random.uniform(0.4, 0.8)
    return light
