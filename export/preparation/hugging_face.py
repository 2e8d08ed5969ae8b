"""preprocessor_config.json, as the image processors of Hugging Face's transformers write it.

What such a file means depends on the class that it names: ConvNeXT's resizes to more than the size
that it is told, and LeViT's to yet another. So only classes that are known are read.
"""

from __future__ import annotations

from typing import Any

from export.preparation.given import Given
from export.preparation.values import Values

# Pillow's numbers of filters.
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}
# Classes without their suffixes. A size that is one number is both sides, or the shorter one.
SQUARE = ("ViT", "DeiT", "Beit", "Pvt", "Siglip")
SHORTER = ("CLIP", "Bit", "ConvNext", "MobileNetV1", "MobileNetV2", "MobileViT")
KINDS = {
    f"{name}{suffix}": name
    for name in (*SQUARE, *SHORTER)
    for suffix in ("ImageProcessor", "ImageProcessorFast", "FeatureExtractor")
}
NOT_PIXELS = [
    "image_processor_type",
    "feature_extractor_type",
    "processor_class",
    "_processor_class",
    "auto_map",
    "_valid_processor_keys",
    "data_format",
    "input_data_format",
    "return_tensors",
    "device",
    "disable_grouping",
    "do_convert_rgb",
    "do_reduce_labels",
    "reduce_labels",
    "default_to_square",
]
NOT_DONE = ["do_pad", "pad_size", "rescale_offset", "include_top", "do_thumbnail"]
CONVNEXT_SIDE = 384  # from which on ConvNeXT squashes, and below which it crops
CONVNEXT_CROP = 224 / 256


def read_hugging_face(values: Values) -> Given:
    """
    Raises:
        PreparationError: it says too little, or has what cannot be done here.
    """
    named = values.take_any("image_processor_type") or values.take_any("feature_extractor_type")
    kind = values.choose("image_processor_type", named, KINDS)
    values.ignore(*NOT_PIXELS)
    values.refuse(*NOT_DONE)
    # MobileViT's file says only what differs from that.
    is_flipped = values.take("do_flip_channel_order", bool, kind == "MobileViT")
    resample = values.choose("resample", values.take("resample", int), RESAMPLE)
    resize, crop, mode = _read_sides(values, kind)
    mean, std = _read_normalisation(values, is_normalised=kind != "MobileViT")
    given = Given(
        resize=resize,
        crop=crop,
        interpolation=resample,
        antialias=True,
        resize_mode=mode,
        channels="bgr" if is_flipped else "rgb",
        mean=mean,
        std=std,
        file=values.file,
    )
    values.refuse_rest()
    return given


def _read_sides(values: Values, kind: str) -> tuple[int, int, str]:
    """Resize, crop, and the mode of the resize."""
    if not values.take("do_resize", bool):
        raise values.bad("do_resize", False, "true, since pictures come in any size")
    resize, mode = _read_size(values, kind)
    fraction = values.take_fraction("crop_pct", CONVNEXT_CROP) if kind == "ConvNext" else 1.0
    if kind == "ConvNext" and mode == "shorter":
        if resize < CONVNEXT_SIDE:
            return int(resize / fraction), resize, mode
        return resize, resize, "squash"
    crop = values.take_any("crop_size")
    if values.take("do_center_crop", bool, False):
        return resize, _side("crop_size", crop, values), mode
    if mode == "shorter":
        raise values.bad("do_center_crop", False, "true, since the network reads squares")
    return resize, resize, mode


def _read_size(values: Values, kind: str) -> tuple[int, str]:
    size = values.take_any("size")
    if isinstance(size, dict) and set(size) == {"shortest_edge"}:
        return _side("size", size["shortest_edge"], values), "shorter"
    if isinstance(size, dict):
        return _side("size", size, values), "squash"
    return _side("size", size, values), "squash" if kind in SQUARE else "shorter"


def _side(key: str, size: Any, values: Values) -> int:
    """Of a square: 224, or {"height": 224, "width": 224}."""
    sides = size if isinstance(size, dict) else {"height": size, "width": size}
    height, width = sides.get("height"), sides.get("width")
    if set(sides) != {"height", "width"} or type(height) is not int or height != width:
        raise values.bad(key, size, "the side of a square, or of the shortest edge")
    return height


def _read_normalisation(
    values: Values, *, is_normalised: bool
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of pixels in 0..1, whatever the file scales them to."""
    factor = values.take("rescale_factor", float, 1 / 255)
    largest = 255 * factor if values.take("do_rescale", bool, True) else 255.0
    largest = round(largest, 6)  # 255 times 0.00392156862745098 is not quite 1
    if values.take("do_normalize", bool, is_normalised):
        mean, std = values.take_numbers("image_mean"), values.take_numbers("image_std")
    else:
        values.ignore("image_mean", "image_std")
        mean, std = (0.0,) * 3, (1.0,) * 3
    if largest <= 0:
        raise values.bad("rescale_factor", factor, "above 0")
    return tuple(it / largest for it in mean), tuple(it / largest for it in std)
