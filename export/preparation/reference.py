"""The network's input of a photo, computed by other code than the gateway's.

What the gateway prepares is compared with it: geometry as in torchvision's transforms, resizing by
Pillow, by torch where there is no antialiasing, and by area as its definition says.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from convoy.v1 import classifier_pb2 as pb

Pixels = npt.NDArray[np.uint8]

PILLOW = {
    pb.BILINEAR: Image.Resampling.BILINEAR,
    pb.BICUBIC: Image.Resampling.BICUBIC,
    pb.NEAREST: Image.Resampling.NEAREST,
    pb.BOX: Image.Resampling.BOX,
    pb.LANCZOS: Image.Resampling.LANCZOS,
}
TORCH = {pb.BILINEAR: "bilinear", pb.BICUBIC: "bicubic", pb.NEAREST: "nearest"}


def reference_pixels(content: bytes, photo: pb.Photo) -> Pixels:
    """The input of an encoded picture without orientation and transparency: crop×crop×3."""
    return prepare(Image.open(io.BytesIO(content)).convert("RGB"), photo)


def prepare(picture: Image.Image, photo: pb.Photo) -> Pixels:
    """The input of a picture in RGB: crop×crop×3."""
    resized = _resize(picture, _size(picture, photo), photo)
    width, height, crop = resized.width, resized.height, photo.crop
    left, top = (max(crop - side, 0) // 2 for side in (width, height))
    canvas = Image.new("RGB", (max(width, crop), max(height, crop)), tuple(photo.fill) or 0)
    canvas.paste(resized, (left, top))
    left, top = (round((side - crop) / 2) for side in canvas.size)  # half to even
    return np.asarray(canvas.crop((left, top, left + crop, top + crop)))


def _size(picture: Image.Image, photo: pb.Photo) -> tuple[int, int]:
    side, (width, height) = photo.resize, picture.size
    if photo.resize_mode == pb.SQUASH:
        return side, side
    if photo.resize_mode == pb.PAD:
        ratio = max(width / side, height / side)
        return max(1, round(width / ratio)), max(1, round(height / ratio))
    shorter = min(width, height)
    return int(side * width / shorter), int(side * height / shorter)


def _resize(picture: Image.Image, size: tuple[int, int], photo: pb.Photo) -> Image.Image:
    if photo.interpolation == pb.AREA:
        return _by_area(picture, size)
    if photo.HasField("antialias") and not photo.antialias:
        return _by_torch(picture, size, TORCH[photo.interpolation])
    return picture.resize(size, PILLOW[photo.interpolation])


def _by_torch(picture: Image.Image, size: tuple[int, int], mode: str) -> Image.Image:
    import torch

    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
    centred = None if mode == "nearest" else False
    resized = torch.nn.functional.interpolate(
        pixels, size=size[::-1], mode=mode, align_corners=centred
    )
    levels = resized[0].permute(1, 2, 0).round().clamp(0, 255)
    return Image.fromarray(levels.to(torch.uint8).numpy())


def _by_area(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Where a side becomes longer: OpenCV's rule for that, which no definition gives."""
    is_enlarged = size[0] > picture.width or size[1] > picture.height
    matrix = _between_pixels if is_enlarged else _coverage
    x, y = matrix(picture.width, size[0]), matrix(picture.height, size[1])
    levels = np.einsum("yh,xw,hwc->yxc", y, x, np.asarray(picture), optimize=True)
    return Image.fromarray(np.rint(levels).astype(np.uint8))


def _coverage(source: int, target: int) -> npt.NDArray[np.float64]:
    """target×source: how much of each pixel of the result lies on each of the source."""
    edges = np.arange(target + 1)[:, np.newaxis] * source / target
    starts = np.maximum(edges[:-1], np.arange(source))
    ends = np.minimum(edges[1:], np.arange(source) + 1)
    shares: npt.NDArray[np.float64] = np.clip(ends - starts, 0, None) * target / source
    return shares


def _between_pixels(source: int, target: int) -> npt.NDArray[np.float64]:
    """target×source: the pixel in which the result's begins, and the next if it ends there."""
    matrix = np.zeros((target, source))
    for row in range(target):
        first = row * source // target
        beyond = max(0.0, row + 1 - (first + 1) * target / source) % 1
        matrix[row, first] += 1 - beyond
        matrix[row, min(first + 1, source - 1)] += beyond
    return matrix
