"""Prepare a photo: resize it, crop the centre. The exported graph divides by 255 and normalises.

What the model's facts leave out is the published transform of the ImageNet checkpoints, to the
pixel: the shorter side resized, bilinear with antialiasing, the only bilinear filter that Pillow
has. Geometry is torchvision's; padding is that of timm's "border".
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from convoy.v1 import classifier_pb2 as pb
from server.preprocessing.sampling import resize_by_area, sample

Size = tuple[int, int]  # width, height
Box = tuple[int, int, int, int]  # left, top, right, bottom

# Where a photo is antialiased. AREA is ours, since Pillow has none.
FILTERS = {
    pb.BILINEAR: Image.Resampling.BILINEAR,
    pb.BICUBIC: Image.Resampling.BICUBIC,
    pb.NEAREST: Image.Resampling.NEAREST,
    pb.BOX: Image.Resampling.BOX,
    pb.LANCZOS: Image.Resampling.LANCZOS,
}

# From this ratio of long to short side on, only the part inside the crop is resized: a 1×5,000
# picture resized as a whole would take 256×1,280,000 pixels. Below it, the whole picture takes at
# most 16 times 342×342 pixels.
ELONGATED = 16
# How many times as long as in the end a side of an elongated picture is, at the least, once whole
# pixels have been averaged. Pillow's documentation takes it to be as good as the filter alone.
REDUCING_GAP = 3.0


def prepare_photo(image: Image.Image, photo: pb.Photo) -> npt.NDArray[np.uint8]:
    """Prepare a decoded picture of any size: uint8, crop×crop×3, red, green and blue."""
    size = resized_size(image.size, photo)
    left, top = (centre_offset(side, photo.crop) for side in size)
    box = (left, top, left + photo.crop, top + photo.crop)
    shown = (max(left, 0), max(top, 0), min(box[2], size[0]), min(box[3], size[1]))
    cut = _resize_and_cut(image, size, shown, photo)
    if shown == box:
        return np.asarray(cut)
    canvas = Image.new("RGB", (photo.crop, photo.crop), tuple(photo.fill) or 0)
    canvas.paste(cut, (shown[0] - left, shown[1] - top))
    return np.asarray(canvas)


def resized_size(size: Size, photo: pb.Photo) -> Size:
    """Width and height after resizing."""
    if photo.resize_mode == pb.SQUASH:
        return photo.resize, photo.resize
    width, height = size
    if photo.resize_mode == pb.PAD:
        longer = max(size)
        return (
            max(1, round(width * photo.resize / longer)),
            max(1, round(height * photo.resize / longer)),
        )
    longer = int(photo.resize * max(size) / min(size))  # truncated, not rounded
    return (photo.resize, longer) if width <= height else (longer, photo.resize)


def crop_box(size: Size, photo: pb.Photo) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what is cut out, in pixels of a picture of that size.

    They are beyond its borders where it is padded.
    """
    resized = resized_size(size, photo)
    x_scale, y_scale = (whole / small for whole, small in zip(size, resized, strict=True))
    left, top = (centre_offset(side, photo.crop) for side in resized)
    right, bottom = left + photo.crop, top + photo.crop
    return (left * x_scale, top * y_scale, right * x_scale, bottom * y_scale)


def centre_offset(side: int, crop: int) -> int:
    """The first pixel of the crop; halves are rounded to even: 58.5 to 58, 59.5 to 60.

    Of a side that is shorter than the crop, minus the pixels that are added before it: half of
    them, or one fewer than after it.
    """
    return round((side - crop) / 2) if side >= crop else -((crop - side) // 2)


# ---------------------------------------------------------------- the pixels


def _resize_and_cut(image: Image.Image, size: Size, box: Box, photo: pb.Photo) -> Image.Image:
    """The pixels inside `box` of the picture resized to `size`, as RGB."""
    if photo.interpolation == pb.AREA:
        return resize_by_area(image, size, box)
    if photo.HasField("antialias") and not photo.antialias:
        return sample(image, size, box, photo.interpolation)
    resampling = FILTERS[photo.interpolation]
    if max(image.size) < ELONGATED * min(image.size):
        cut = image.resize(size, resampling).crop(box)
    elif photo.resize_mode == pb.SHORTER:
        cut = _resize_within(image, size, box, resampling)
    else:
        cut = image.resize(size, resampling, reducing_gap=REDUCING_GAP).crop(box)
    return cut.convert("RGB")


def _resize_within(
    image: Image.Image, size: Size, box: Box, resampling: Image.Resampling
) -> Image.Image:
    """Only the pixels inside `box` of the picture resized to `size`.

    They differ by at most 2 of 255 from those of the whole picture resized, because Pillow stores
    the box in single precision.
    """
    left, top, right, bottom = box
    x_scale, y_scale = image.width / size[0], image.height / size[1]
    return image.resize(
        (right - left, bottom - top),
        resampling,
        box=(left * x_scale, top * y_scale, right * x_scale, bottom * y_scale),
    )
