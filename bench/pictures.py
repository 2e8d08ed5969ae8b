"""Pictures that the benchmarks send."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw


def digit() -> bytes:
    """A seven of 28×28 pixels as PNG: with the rest of its message 0.4 kB."""
    image = Image.new("L", (112, 112), 255)
    ImageDraw.Draw(image).line([(28, 24), (80, 28), (48, 88)], fill=0, width=12)
    content = io.BytesIO()
    image.resize((28, 28)).save(content, "PNG")
    return content.getvalue()


def photo() -> bytes:
    """A photograph of 640×480, as a client sends it."""
    from sklearn.datasets import load_sample_image

    content = io.BytesIO()
    whole = Image.fromarray(load_sample_image("china.jpg"))
    whole.resize((640, 480)).save(content, "JPEG", quality=90)
    return content.getvalue()
