"""Resize as libraries do that Pillow does not equal: torch without antialiasing, OpenCV by area.

Each pixel of the result is a weighted sum of pixels along y, and of those sums along x; only what
is cut out of the resized picture is computed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from convoy.v1 import classifier_pb2 as pb

Size = tuple[int, int]  # width, height
Box = tuple[int, int, int, int]  # left, top, right, bottom
Floats = npt.NDArray[np.float32]

CUBIC = np.float32(-0.75)  # the free parameter of torch's cubic convolution
NEGLIGIBLE = 1e-3  # of a pixel, of which OpenCV takes no notice


class Taps(NamedTuple):
    """What n pixels of the result are made of, along one axis."""

    indices: npt.NDArray[np.intp]  # n×taps, of the source's pixels
    weights: Floats  # n×taps


def sample(
    image: Image.Image, size: Size, box: Box, interpolation: pb.Interpolation
) -> Image.Image:
    """The pixels inside `box` of the picture resized to `size` without antialiasing, as RGB.

    Those of torch.nn.functional.interpolate of float32 pixels, rounded half to even: bilinear,
    bicubic (align_corners=False) and nearest.

    Raises:
        KeyError: torch has no such interpolation.
    """
    taps = {pb.NEAREST: nearest_taps, pb.BILINEAR: bilinear_taps, pb.BICUBIC: bicubic_taps}
    make = taps[interpolation]
    x = make(image.width, size[0], np.arange(box[0], box[2]))
    y = make(image.height, size[1], np.arange(box[1], box[3]))
    return _weigh(image, x, y)


def resize_by_area(image: Image.Image, size: Size, box: Box) -> Image.Image:
    """The pixels inside `box` of the picture resized to `size`, as RGB: each is the mean of the
    area that it covers.

    As OpenCV's INTER_AREA: where a side becomes longer, both are interpolated.
    """
    is_enlarged = size[0] > image.width or size[1] > image.height
    make = enlarging_taps if is_enlarged else area_taps
    x = make(image.width, size[0], np.arange(box[0], box[2]))
    y = make(image.height, size[1], np.arange(box[1], box[3]))
    return _weigh(image, x, y)


def _weigh(image: Image.Image, x: Taps, y: Taps) -> Image.Image:
    """Row by row: as numbers, all that is read would take four times the memory of the picture."""
    source = np.asarray(image)
    source = source[..., :3] if source.ndim == 3 else source[..., np.newaxis]  # grey
    source, y = _only_read(source, y)
    source, x = _only_read(source.swapaxes(0, 1), x)
    source = source.swapaxes(0, 1)
    result = np.empty((len(y.indices), len(x.indices), source.shape[2]), np.float32)
    for row, indices, weights in zip(result, *y, strict=True):
        line = np.tensordot(weights, source[indices].astype(np.float32), axes=1)  # W×C
        np.einsum("xtc,xt->xc", line[x.indices], x.weights, out=row)
    pixels = np.rint(result).clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _only_read(source: npt.NDArray[np.uint8], taps: Taps) -> tuple[npt.NDArray[np.uint8], Taps]:
    """The entries of the first axis that are read, of which there may be few."""
    read, indices = np.unique(taps.indices, return_inverse=True)
    is_whole_part = len(read) == read[-1] + 1 - read[0]
    part = source[read[0] : read[-1] + 1] if is_whole_part else source[read]
    return part, Taps(indices.reshape(taps.indices.shape), taps.weights)


# ---------------------------------------------------------------- without antialiasing

# torch computes in float32 where it samples, so that this does too.


def nearest_taps(source: int, target: int, pixels: npt.NDArray[np.intp]) -> Taps:
    scale = np.float32(source) / np.float32(target)
    indices = np.minimum((pixels.astype(np.float32) * scale).astype(np.intp), source - 1)
    return Taps(indices[:, np.newaxis], np.ones((len(pixels), 1), np.float32))


def bilinear_taps(source: int, target: int, pixels: npt.NDArray[np.intp]) -> Taps:
    position = np.maximum(_centres(source, target, pixels), 0)
    first = np.minimum(position.astype(np.intp), source - 1)
    beyond = np.clip(position - first.astype(np.float32), 0, 1)
    indices = np.stack([first, np.minimum(first + 1, source - 1)], axis=1)
    return Taps(indices, np.stack([1 - beyond, beyond], axis=1))


def bicubic_taps(source: int, target: int, pixels: npt.NDArray[np.intp]) -> Taps:
    """Cubic convolution: Keys 1981, doi 10.1109/TASSP.1981.1163711."""
    position = _centres(source, target, pixels)
    first = np.floor(position)
    beyond = position - first
    near = [((CUBIC + 2) * t - (CUBIC + 3)) * t * t + 1 for t in (beyond, 1 - beyond)]
    far = [
        ((CUBIC * t - 5 * CUBIC) * t + 8 * CUBIC) * t - 4 * CUBIC for t in (beyond + 1, 2 - beyond)
    ]
    indices = first.astype(np.intp)[:, np.newaxis] + np.arange(-1, 3)
    weights = np.stack([far[0], near[0], near[1], far[1]], axis=1)
    return Taps(indices.clip(0, source - 1), weights)


def _centres(source: int, target: int, pixels: npt.NDArray[np.intp]) -> Floats:
    """Where the centres of the result's pixels lie, from that of the source's first pixel on."""
    scale = np.float32(source) / np.float32(target)
    half = np.float32(0.5)
    centres: Floats = scale * (pixels.astype(np.float32) + half) - half
    return centres


# ---------------------------------------------------------------- by area


def area_taps(source: int, target: int, pixels: npt.NDArray[np.intp]) -> Taps:
    """The share of each source pixel that lies in a pixel of the result."""
    scale = source / target
    start = pixels * scale
    end = np.minimum(start + scale, source)
    first = np.floor(start + NEGLIGIBLE).astype(np.intp)
    indices = first[:, np.newaxis] + np.arange(int(np.ceil(scale)) + 1)
    covered = np.minimum(indices + 1, end[:, np.newaxis]) - np.maximum(
        indices, start[:, np.newaxis]
    )
    weights = np.where(covered > NEGLIGIBLE, covered, 0) / (end - start)[:, np.newaxis]
    return Taps(indices.clip(0, source - 1), weights.astype(np.float32))


def enlarging_taps(source: int, target: int, pixels: npt.NDArray[np.intp]) -> Taps:
    """Between two pixels only where the result's pixel lies on both."""
    first = np.floor(pixels * (source / target)).astype(np.intp)
    beyond = pixels + 1 - (first + 1) * (target / source)
    beyond = np.where(beyond <= 0, 0, beyond - np.floor(beyond))
    beyond = np.where(first >= source - 1, 0, beyond).astype(np.float32)
    indices = np.stack([first, np.minimum(first + 1, source - 1)], axis=1)
    return Taps(indices.clip(0, source - 1), np.stack([1 - beyond, beyond], axis=1))
