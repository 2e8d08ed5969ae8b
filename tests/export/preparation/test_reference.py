"""The reference of a photo's preparation agrees with the gateway's, which is other code."""

from __future__ import annotations

import io
from itertools import product

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from convoy.v1 import classifier_pb2 as pb
from export.preparation.reference import reference_pixels
from server.preprocessing import prepare

CHINA = Image.fromarray(load_sample_image("china.jpg"))
HOW = [
    *product((pb.BILINEAR, pb.BICUBIC, pb.NEAREST, pb.BOX, pb.LANCZOS, pb.AREA), (True,)),
    *product((pb.BILINEAR, pb.BICUBIC, pb.NEAREST), (False,)),
]


@pytest.mark.parametrize(("interpolation", "antialias"), HOW)
@pytest.mark.parametrize("mode", [pb.SHORTER, pb.SQUASH, pb.PAD])
def test_the_reference_is_what_the_gateway_prepares(
    interpolation: pb.Interpolation, antialias: bool, mode: pb.ResizeMode
) -> None:
    for size, (resize, crop) in product(
        [(160, 107), (83, 131), (20, 31)], [(64, 64), (57, 50), (48, 41)]
    ):
        image = CHINA.resize(size)
        content = io.BytesIO()
        image.save(content, "PNG")
        photo = pb.Photo(
            resize=resize,
            crop=crop,
            interpolation=interpolation,
            antialias=antialias,
            resize_mode=mode,
            fill=(10, 20, 30),
        )
        prepared = prepare(image, pb.Preprocessing(photo=photo)).astype(int)
        difference = np.abs(prepared - reference_pixels(content.getvalue(), photo))
        # Decimals are summed in another order, and the gateway's bilinear filter is not Pillow's.
        assert difference.max() <= 1
        is_simd = interpolation == pb.BILINEAR and antialias
        assert (difference > 0).mean() < (0.3 if is_simd else 0.02)
