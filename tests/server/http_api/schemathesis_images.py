"""For Schemathesis: among the bytes that it makes up, pictures that a model can answer."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import schemathesis
from hypothesis import strategies as st
from PIL import Image


def small_digit() -> bytes:
    content = io.BytesIO()
    with Image.open(Path(__file__).parents[2] / "data" / "digit-7.png") as digit:
        digit.resize((64, 64)).save(content, "PNG")
    return content.getvalue()


DIGIT = small_digit()

images = st.one_of(st.just(DIGIT), st.binary(max_size=64))
schemathesis.openapi.format("binary", images)
schemathesis.openapi.format("byte", images.map(lambda image: base64.b64encode(image).decode()))
