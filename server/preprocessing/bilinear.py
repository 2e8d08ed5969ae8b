"""Resize a part of a picture, bilinear and antialiased: by SIMD where there is a package for it.

cykooz-resizer wraps fast_image_resize, which filters as Pillow does, in a fifth of the time: their
pixels differ by at most 1 of 255. It has no wheel for Linux on ARM, where Pillow does it.
"""

from __future__ import annotations

from PIL import Image

try:
    import cykooz_resizer as simd
    from cykooz_resizer.alpha import set_image_mode

    HAS_SIMD = True
except ImportError:
    HAS_SIMD = False

Size = tuple[int, int]  # width, height
Region = tuple[float, float, float, float]  # left, top, right, bottom

ELONGATED = 16  # times as long as wide
# Pillow filters along x first, all rows that it reads. Where these are many times as many as in the
# end, it first averages whole pixels, which its documentation takes to be as good.
REDUCING_GAP = 3.0


def describe_resizer() -> str:
    """Such as "fast_image_resize (avx2)"."""
    if not HAS_SIMD:
        return "Pillow"
    return f"fast_image_resize ({simd.Resizer().cpu_extensions.name})"


def resize_bilinear(image: Image.Image, region: Region, size: Size) -> Image.Image:
    """The region of a grey or RGB picture, in its pixels and with fractions, as `size` pixels."""
    is_elongated = max(image.size) >= ELONGATED * min(image.size)
    # Rust ends the process where it finds no memory, of which elongated pictures take much.
    if is_elongated or not HAS_SIMD:
        return _by_pillow(image, region, size)
    return _by_simd(image, region, size)


def _by_simd(image: Image.Image, region: Region, size: Size) -> Image.Image:
    if image.mode == "RGBX":  # the same pixels, which converting would copy
        set_image_mode(image, "RGB")
    result = Image.new(image.mode, size)
    left, top = region[:2]
    right, bottom = (min(*ends) for ends in zip(region[2:], image.size, strict=True))
    options = simd.ResizeOptions(
        simd.ResizeAlg.convolution(simd.FilterType.bilinear),
        crop_box=simd.CropBox(left, top, right - left, bottom - top),
    )
    simd.Resizer().resize_pil(image, result, options)
    return result


def _by_pillow(image: Image.Image, region: Region, size: Size) -> Image.Image:
    """Off by at most 1 of 255, of elongated pictures by 2: a region is kept in single precision."""
    left, top, right, bottom = region
    sides = sorted((right - left, bottom - top))
    gap = REDUCING_GAP if sides[1] >= ELONGATED * sides[0] else None
    return image.resize(size, Image.Resampling.BILINEAR, box=region, reducing_gap=gap)
