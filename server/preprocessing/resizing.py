"""Resize a part of a picture, antialiased: by SIMD where there is a package for it.

Photos and digits are resized here alone. cykooz-resizer wraps fast_image_resize, which weighs
pixels as Pillow does, in a fifth of the time for a photo, but filters along the other axis first.
In floats that makes no difference, and with bilinear weights one of at most 1 of 255. What Pillow
does is the rest: other filters of 8 bits, which clip between the axes; elongated pictures; and all
where the package has no wheel, such as Linux on ARM.
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

BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
# Times as long as wide. A 1×5,000 picture of which the shorter side becomes 256 would take
# 256×1,280,000 pixels. Below it, the whole takes at most 16 times 342×342 pixels.
ELONGATED = 16
# How many times as long as in the end a side of an elongated picture is, at the least, once whole
# pixels have been averaged: the weights of a filter take many times the memory of a picture that is
# one pixel wide. Pillow's documentation takes 3 to be as good as the filter alone.
REDUCING_GAP = 3.0


def describe_resizer() -> str:
    """Such as "fast_image_resize (avx2)"."""
    if not HAS_SIMD:
        return "Pillow"
    return f"fast_image_resize ({simd.Resizer().cpu_extensions.name})"


def is_elongated(width: float, height: float) -> bool:
    """Whether it is so long that only the part that is shown is resized."""
    return max(width, height) >= ELONGATED * min(width, height)


def resize(
    image: Image.Image, size: Size, resampling: Image.Resampling, region: Region | None = None
) -> Image.Image:
    """The region of a picture as `size` pixels: grey or RGB of 8 bits, or floats.

    The region is in the picture's pixels, with fractions; None: the whole picture.
    """
    if HAS_SIMD and _is_as_pillows(image, resampling):
        return _by_simd(image, size, resampling, region or (0, 0, *image.size))
    return _by_pillow(image, size, resampling, region)


def _is_as_pillows(image: Image.Image, resampling: Image.Resampling) -> bool:
    """Whether SIMD gives the pixels of Pillow, and takes little memory.

    Rust ends the process where it finds none, and elongated pictures take much.
    """
    if image.mode == "F":
        return resampling in (BILINEAR, BICUBIC)
    return resampling == BILINEAR and not is_elongated(*image.size)


def _by_simd(
    image: Image.Image, size: Size, resampling: Image.Resampling, region: Region
) -> Image.Image:
    if image.mode == "RGBX":  # the same pixels, which converting would copy
        set_image_mode(image, "RGB")
    filters = {BILINEAR: simd.FilterType.bilinear, BICUBIC: simd.FilterType.catmull_rom}
    result = Image.new(image.mode, size)
    left, top = region[:2]
    right, bottom = (min(*ends) for ends in zip(region[2:], image.size, strict=True))
    options = simd.ResizeOptions(
        simd.ResizeAlg.convolution(filters[resampling]),
        crop_box=simd.CropBox(left, top, right - left, bottom - top),
    )
    simd.Resizer().resize_pil(image, result, options)
    return result


def _by_pillow(
    image: Image.Image, size: Size, resampling: Image.Resampling, region: Region | None
) -> Image.Image:
    """Off by at most 1 of 255, of elongated pictures by 2: a region is kept in single precision."""
    left, top, right, bottom = region or (0, 0, *image.size)
    is_reduced = image.mode != "F" and is_elongated(right - left, bottom - top)
    gap = REDUCING_GAP if is_reduced else None
    return image.resize(size, resampling, box=region, reducing_gap=gap)
