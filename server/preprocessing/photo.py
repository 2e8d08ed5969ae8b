"""Prepare a photo for the ImageNet networks: resize the shorter side, crop the centre.

This is the published transform of the checkpoints, to the pixel: bilinear with antialiasing, the
only bilinear filter that Pillow has. The exported graph divides by 255 and normalises.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from convoy.v1 import classifier_pb2 as pb

# From this ratio of long to short side on, only the part inside the crop is resized: a 1×5,000
# picture resized as a whole would take 256×1,280,000 pixels. Below it, the whole picture takes at
# most 16 times 342×342 pixels.
ELONGATED = 16


def prepare_photo(image: Image.Image, photo: pb.Photo) -> npt.NDArray[np.uint8]:
    """Prepare a decoded picture of any size: uint8, crop×crop×3, red, green and blue."""
    size = resized_size(image.size, photo.resize)
    left, top = (centre_offset(side, photo.crop) for side in size)
    box = (left, top, left + photo.crop, top + photo.crop)
    if max(image.size) < ELONGATED * min(image.size):
        cut = image.resize(size, Image.Resampling.BILINEAR).crop(box)
    else:
        cut = _resize_within(image, size, box)
    return np.asarray(cut.convert("RGB"))


def resized_size(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Width and height after resizing the shorter side; the longer is truncated, not rounded."""
    width, height = size
    longer = int(shorter * max(size) / min(size))
    return (shorter, longer) if width <= height else (longer, shorter)


def crop_box(size: tuple[int, int], photo: pb.Photo) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what is cut out, in pixels of a picture of that size."""
    resized = resized_size(size, photo.resize)
    x_scale, y_scale = (whole / small for whole, small in zip(size, resized, strict=True))
    left, top = (centre_offset(side, photo.crop) for side in resized)
    right, bottom = left + photo.crop, top + photo.crop
    return (left * x_scale, top * y_scale, right * x_scale, bottom * y_scale)


def centre_offset(side: int, crop: int) -> int:
    """The first pixel of the crop; halves are rounded to even: 58.5 to 58, 59.5 to 60."""
    return round((side - crop) / 2)


def _resize_within(
    image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int]
) -> Image.Image:
    """Only the pixels inside `box` of the picture resized to `size`.

    They differ by at most 2 of 255 from those of the whole picture resized, because Pillow stores
    the box in single precision.
    """
    left, top, right, bottom = box
    x_scale, y_scale = image.width / size[0], image.height / size[1]
    return image.resize(
        (right - left, bottom - top),
        Image.Resampling.BILINEAR,
        box=(left * x_scale, top * y_scale, right * x_scale, bottom * y_scale),
    )
