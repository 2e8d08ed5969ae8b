"""Heat-maps laid over their image, one panel per class. It needs numpy and Pillow."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageOps

from convoy.client import Classification

Floats = npt.NDArray[np.float32]

PANEL_SIDE = 448  # pixels, the longer side
CAPTION_HEIGHT = 24
# From no evidence to the most: red, green and blue at equal distances.
COLOURS = ((0, 0, 96), (0, 96, 255), (0, 224, 128), (255, 224, 0), (224, 0, 0))
OPACITY = 0.55
OUTSIDE = 0.5  # how bright the part of the image is that the network did not see


def draw_overlay(image: bytes, answer: Classification) -> Image.Image:
    """Panels side by side, best class first; `answer` has its heat-map, and for digits its input.

    Raises:
        ValueError: it has none.
    """
    if answer.heatmap is None:
        raise ValueError("the answer has no heat-map: ask for one, with include=['HEATMAP']")
    picture, box = to_picture(image, answer)
    panels = [
        draw_panel(picture, box, answer.heatmap.maps[best.index], f"{best.label} {best.score:.1%}")
        for best in answer.classes
        if best.index in answer.heatmap.maps
    ]
    sheet = Image.new("RGB", (sum(panel.width for panel in panels), panels[0].height), "white")
    left = 0
    for panel in panels:
        sheet.paste(panel, (left, 0))
        left += panel.width
    return sheet


def to_picture(
    image: bytes, answer: Classification
) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """What is drawn on, as large as a panel, and the part of it that the maps cover."""
    assert answer.heatmap
    is_digit = answer.heatmap.box is None
    content = answer.input.png if is_digit and answer.input else image
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    scale = PANEL_SIDE / max(upright.size)
    resampling = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC
    size = (round(upright.width * scale), round(upright.height * scale))
    left, top, right, bottom = (
        round(edge * scale) for edge in answer.heatmap.box or (0, 0, *upright.size)
    )
    return upright.resize(size, resampling), (left, top, right, bottom)


def draw_panel(
    picture: Image.Image, box: tuple[int, int, int, int], heatmap: Floats, caption: str
) -> Image.Image:
    left, top, right, bottom = box
    values = Image.fromarray(heatmap).resize((right - left, bottom - top), Image.Resampling.BICUBIC)
    inside = np.asarray(picture.crop(box), np.float32)
    covered = Image.fromarray((np.asarray(picture, np.float32) * OUTSIDE).astype(np.uint8))
    blended = inside * (1 - OPACITY) + colour(np.asarray(values)) * OPACITY
    covered.paste(Image.fromarray(blended.astype(np.uint8)), (left, top))
    panel = Image.new("RGB", (picture.width, picture.height + CAPTION_HEIGHT), "white")
    panel.paste(covered, (0, 0))
    ImageDraw.Draw(panel).text((6, picture.height + 6), caption, fill="black")
    return panel


def colour(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:  # H×W to H×W×3
    steps = np.linspace(0, 1, len(COLOURS))
    channels = zip(*COLOURS, strict=True)
    return np.stack([np.interp(values, steps, channel) for channel in channels], axis=2).astype(
        np.float32
    )
