"""Resizing as other systems do it, written from the definitions, by scikit-image or by torch.

None of it is the project's own: pixels H×W×3 in, pixels of the size (width, height) out, as floats
that are not rounded unless the system rounds them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from skimage.transform import resize as skimage_resize

Floats = npt.NDArray[np.float64]
Resizer = Callable[[Floats, tuple[int, int]], Floats]


def _separable(weights: Callable[[int, int], Floats]) -> Resizer:
    """`weights` has a row for each pixel of the result, target×source."""

    def resize(pixels: Floats, size: tuple[int, int]) -> Floats:
        rows = weights(pixels.shape[0], size[1])
        columns = weights(pixels.shape[1], size[0])
        resized: Floats = np.einsum("yh,hwc,xw->yxc", rows, pixels, columns, optimize=True)
        return np.clip(resized, 0, 255)

    return resize


def _kernel(function: Callable[[Floats], Floats], *, widened: bool) -> Callable[[int, int], Floats]:
    """A kernel around the middle of each pixel; widened by the scale it is an antialiasing one."""

    def weights(source: int, target: int) -> Floats:
        scale = source / target
        middles = (np.arange(target) + 0.5) * scale - 0.5
        width = max(scale, 1.0) if widened else 1.0
        margin = 8 * int(np.ceil(width))  # pixels beyond the border are those of the border
        places = np.arange(-margin, source + margin)
        matrix = function((places[np.newaxis] - middles[:, np.newaxis]) / width)
        folded = np.zeros((target, source))
        if widened:  # Pillow cuts the kernel off at the border
            folded = matrix[:, margin:-margin]
        else:
            np.add.at(folded.T, np.clip(places, 0, source - 1), matrix.T)
        normalised: Floats = folded / folded.sum(axis=1, keepdims=True)
        return normalised

    return weights


def triangle(x: Floats) -> Floats:
    weights: Floats = np.clip(1 - np.abs(x), 0, None)
    return weights


def keys(a: float) -> Callable[[Floats], Floats]:
    """Keys (1981), "Cubic convolution interpolation": -0.5 in Pillow, -0.75 in torch and OpenCV."""

    def cubic(x: Floats) -> Floats:
        x = np.abs(x)
        inner = (a + 2) * x**3 - (a + 3) * x**2 + 1
        outer = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
        weights: Floats = np.where(x < 1, inner, np.where(x < 2, outer, 0))
        return weights

    return cubic


def lanczos(x: Floats) -> Floats:
    weights: Floats = np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)
    return weights


def _integral(source: int, target: int) -> Floats:
    """Area: differences of the integral of the source, interpolated at the edges."""
    edges = np.arange(target + 1) * source / target
    integral = np.clip(edges[:, np.newaxis] - np.arange(source), 0, 1)
    means: Floats = np.diff(integral, axis=0) * target / source
    return means


bilinear_antialiased = _separable(_kernel(triangle, widened=True))
bicubic_antialiased = _separable(_kernel(keys(-0.5), widened=True))
lanczos_antialiased = _separable(_kernel(lanczos, widened=True))
bicubic_sampled = _separable(_kernel(keys(-0.75), widened=False))
bicubic_of_tensorflow = _separable(_kernel(keys(-0.5), widened=False))
area = _separable(_integral)


def bilinear_of_skimage(pixels: Floats, size: tuple[int, int]) -> Floats:
    return _skimage(pixels, size, order=1)


def nearest_of_skimage(pixels: Floats, size: tuple[int, int]) -> Floats:
    return _skimage(pixels, size, order=0)


def gaussian_of_skimage(pixels: Floats, size: tuple[int, int]) -> Floats:
    """Blurred first, which no library does that networks come from."""
    return _skimage(pixels, size, order=1, anti_aliasing=True)


def _skimage(pixels: Floats, size: tuple[int, int], **options: object) -> Floats:
    given = {"mode": "edge", "anti_aliasing": False, "preserve_range": True, **options}
    resized: Floats = skimage_resize(pixels, size[::-1], **given)
    return resized


def nearest_of_opencv(pixels: Floats, size: tuple[int, int]) -> Floats:
    """INTER_NEAREST: the pixel in which the result's begins."""
    rows, columns = (
        np.arange(target) * source // target
        for source, target in zip(pixels.shape[:2], size[::-1], strict=True)
    )
    picked: Floats = pixels[rows][:, columns]
    return picked


def bilinear_of_opencv(pixels: Floats, size: tuple[int, int]) -> Floats:
    """INTER_LINEAR of 8-bit pictures: weights of 11 bits, and rounded."""
    weights = _kernel(triangle, widened=False)
    rows, columns = (
        np.rint(weights(source, target) * 2048)
        for source, target in zip(pixels.shape[:2], size[::-1], strict=True)
    )
    summed = np.einsum("yh,hwc,xw->yxc", rows, pixels, columns, optimize=True)
    rounded: Floats = np.clip((summed + (1 << 21)) // (1 << 22), 0, 255)
    return rounded


def bilinear_of_torch(pixels: Floats, size: tuple[int, int]) -> Floats:
    """On tensors, with antialias=True."""
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(
        planes, size=size[::-1], mode="bilinear", antialias=True
    )
    floats: Floats = resized[0].permute(1, 2, 0).double().numpy()
    return floats


def pillow(resampling: Image.Resampling) -> Resizer:
    def resize(pixels: Floats, size: tuple[int, int]) -> Floats:
        resized = Image.fromarray(pixels.astype(np.uint8)).resize(size, resampling)
        return np.asarray(resized, np.float64)

    return resize
