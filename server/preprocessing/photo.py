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
from server.preprocessing.resizing import REDUCING_GAP, Region, Size, is_elongated, resize
from server.preprocessing.sampling import resize_by_area, sample

Box = tuple[int, int, int, int]  # left, top, right, bottom
Extent = tuple[float, float]  # width and height, with fractions of pixels

# Where a photo is antialiased. AREA is ours, since Pillow has none.
FILTERS = {
    pb.BILINEAR: Image.Resampling.BILINEAR,
    pb.BICUBIC: Image.Resampling.BICUBIC,
    pb.NEAREST: Image.Resampling.NEAREST,
    pb.BOX: Image.Resampling.BOX,
    pb.LANCZOS: Image.Resampling.LANCZOS,
}


def prepare_photo(
    image: Image.Image, photo: pb.Photo, decoded_from: Size | None = None
) -> npt.NDArray[np.uint8]:
    """Prepare a decoded picture of any size: uint8, crop×crop×3, red, green and blue.

    `decoded_from` is the size of the file's picture, where it was decoded with fewer pixels.
    """
    whole = decoded_from or image.size
    # Of the last pixels of a smaller picture, only a part may be the file's picture.
    width, height = (n / round(n / fewer) for n, fewer in zip(whole, image.size, strict=True))
    size = resized_size(whole, photo)
    left, top = (centre_offset(side, photo.crop) for side in size)
    box = (left, top, left + photo.crop, top + photo.crop)
    shown = (max(left, 0), max(top, 0), min(box[2], size[0]), min(box[3], size[1]))
    cut = _resize_and_cut(image, (width, height), size, shown, photo)
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


def _resize_and_cut(
    image: Image.Image, extent: Extent, size: Size, box: Box, photo: pb.Photo
) -> Image.Image:
    """The pixels inside `box` of the picture resized to `size`, as RGB."""
    if photo.interpolation == pb.AREA:
        is_reduced = is_elongated(*image.size) and photo.resize_mode != pb.SHORTER
        return resize_by_area(_reduced(image, size) if is_reduced else image, size, box)
    if photo.HasField("antialias") and not photo.antialias:
        return sample(image, size, box, photo.interpolation)
    resampling = FILTERS[photo.interpolation]
    is_part = is_elongated(*image.size) or extent != image.size
    if is_part or photo.interpolation == pb.BILINEAR:
        cut_size = (box[2] - box[0], box[3] - box[1])
        return resize(image, cut_size, resampling, _region(extent, size, box)).convert("RGB")
    return resize(image, size, resampling).crop(box).convert("RGB")  # to the bit as Pillow


def _reduced(image: Image.Image, size: Size) -> Image.Image:
    """With whole pixels averaged, so that at least REDUCING_GAP of them are left for each."""
    x, y = (
        max(1, int(whole / small / REDUCING_GAP))
        for whole, small in zip(image.size, size, strict=True)
    )
    return image.reduce((x, y))


def _region(extent: Extent, resized: Size, box: Box) -> Region:
    """What of the picture becomes the inside of `box` in the resized one, in pixels."""
    x_scale, y_scale = extent[0] / resized[0], extent[1] / resized[1]
    return box[0] * x_scale, box[1] * y_scale, box[2] * x_scale, box[3] * y_scale
