"""Nothing holds the event loop: asyncio itself says so, of bodies of 16 MB on both wires."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from convoy import Client, errors


@pytest.fixture(scope="module")
def large_image() -> bytes:
    """A PNG of noise, almost 16 MB, which decodes to a picture that holds no digit."""
    noise = np.random.default_rng(0).integers(0, 256, (2300, 2300, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, "PNG", compress_level=0)
    assert 15 << 20 < content.tell() < 16 << 20
    return content.getvalue()


@pytest.mark.slow
def test_bodies_of_16_mb_do_not_hold_the_event_loop(
    serve: Callable[..., Any], repository: Path, large_image: bytes
) -> None:
    """In asyncio's debug mode, which names in the log what held the loop for over 100 ms."""
    gateway = serve(f"--repository={repository}", environment={"PYTHONASYNCIODEBUG": "1"})
    gateway.wait_until_ready()
    url = f"{gateway.http}/v1/models/lenet5:classify"
    encoded = {"image": {"content": base64.b64encode(large_image).decode()}}
    for _ in range(5):
        assert httpx.post(url, content=large_image, timeout=60).status_code == 422
        assert httpx.post(url, json=encoded, timeout=60).status_code == 422
        assert (
            httpx.post(url, files={"image": ("x.png", large_image)}, timeout=60).status_code == 422
        )
        with Client(gateway.grpc) as client, pytest.raises(errors.BadImage):
            client.classify(large_image, model="lenet5")
    held_s = [
        float(took) for took in re.findall(r"Executing .* took ([\d.]+) seconds", gateway.log())
    ]
    # Base64 and JSON of 21 MB hold Python's lock, in whatever thread they run.
    assert max(held_s, default=0.0) < 0.25
