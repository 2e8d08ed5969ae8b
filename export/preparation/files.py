"""Files that say how pictures are prepared, as the libraries write them that networks come from.

- torchvision: what `print(weights.transforms())` prints of an ImageClassification preset, or JSON
  of its attributes: crop_size, resize_size, mean, std, interpolation, antialias.
- timm: config.json, whose `pretrained_cfg` has input_size, interpolation, crop_pct, crop_mode, mean
  and std; or that part alone.
- Hugging Face: preprocessor_config.json, of an image processor that resizes, crops, rescales and
  normalises.

Whatever else a file has is refused by its name unless it is known to change no pixel.
"""

from __future__ import annotations

import ast
import json
import math
import re
from pathlib import Path
from typing import Any

from export.errors import PreparationError
from export.files import read_text, shown_name
from export.preparation.given import INTERPOLATIONS, Given
from export.preparation.hugging_face import read_hugging_face
from export.preparation.values import Values

MAX_BYTES = 1 << 20
PRESET = re.compile(r"\s*ImageClassification\((?P<fields>.*)\)\s*", re.DOTALL)
FORMATS = (
    "timm's config.json, Hugging Face's preprocessor_config.json, or what "
    "`print(weights.transforms())` prints of torchvision's ImageClassification"
)


def read_preprocessing(path: Path) -> Given:
    """
    Raises:
        PreparationError: the file is of no known kind, or has what cannot be done here.
    """
    name, remedy = shown_name(path), f"--preprocessing takes {FORMATS}"
    text = read_text(path, MAX_BYTES, PreparationError, remedy)
    if preset := PRESET.fullmatch(text):
        return _read_torchvision(Values(name, _parse_preset(name, preset["fields"])))
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PreparationError(f"{path} is no JSON: --preprocessing takes {FORMATS}.") from error
    if isinstance(document, dict):
        for keys, read in READERS.items():
            if any(key in document for key in keys):
                return read(Values(name, document))
    raise PreparationError(f"{path} says no preparation that is known: it must be {FORMATS}.")


# ------------------------------------------------------------------------------ torchvision


def _parse_preset(name: str, text: str) -> dict[str, Any]:
    """`crop_size=[224]` and `interpolation=InterpolationMode.BILINEAR`, one per line."""
    fields: dict[str, Any] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        key, _, value = line.partition("=")
        mode = re.fullmatch(r"InterpolationMode\.(\w+)", value)
        try:
            fields[key] = mode[1].lower() if mode else ast.literal_eval(value)
        except (ValueError, SyntaxError) as error:
            raise PreparationError(f"{name} has {line!r}, which is no value.") from error
    return fields


def _read_torchvision(values: Values) -> Given:
    values.ignore("training")
    given = Given(
        resize=values.take_side("resize_size"),
        crop=values.take_side("crop_size"),
        interpolation=values.take_choice("interpolation", INTERPOLATIONS, "bilinear"),
        antialias=values.take("antialias", bool, True),
        resize_mode="shorter",
        channels="rgb",
        mean=values.take_numbers("mean"),
        std=values.take_numbers("std"),
        file=values.file,
    )
    values.refuse_rest()
    return given


# ------------------------------------------------------------------------------ timm

# What they say of the network and of where it comes from.
NOT_PIXELS = [
    "architecture",
    "num_classes",
    "num_features",
    "global_pool",
    "label_names",
    "label_descriptions",
    "model_args",
    "model_kwargs",
    "library_name",
    "license",
    "tag",
    "custom_load",
    "fixed_input_size",
    "min_input_size",
    "pool_size",
    "first_conv",
    "classifier",
    "url",
    "file",
    "source",
    "hf_hub_id",
    "hf_hub_filename",
    "paper_ids",
    "paper_name",
    "origin_url",
    "description",
    "notes",
    "label_offset",
    "has_auxiliary",
]
# With which timm evaluates where it is told to, and not by default.
NOT_PIXELS += ["test_input_size", "test_crop_pct"]
TIMM_MODES = {"center": "shorter", "squash": "squash", "border": "pad"}


def _read_timm(values: Values) -> Given:
    if "pretrained_cfg" in values:
        inner = values.take("pretrained_cfg", dict)
        # Files of older versions repeat parts of it outside.
        values.ignore(*NOT_PIXELS, *inner)
        values.refuse_rest()
        values = Values(values.file, inner)
    values.ignore(*NOT_PIXELS)
    shape = values.take("input_size", list)
    if len(shape) != 3 or shape != [3, shape[1], shape[1]] or type(shape[1]) is not int:
        raise values.bad("input_size", shape, "three channels of a square")
    side = shape[1]
    mean, mode = values.take_numbers("mean"), values.take("crop_mode", str, "center")
    fraction = values.take_fraction("crop_pct", 0.875)
    given = Given(
        resize=math.floor(side / fraction),
        crop=side,
        interpolation=values.take_choice("interpolation", INTERPOLATIONS, "bilinear"),
        antialias=True,
        resize_mode=values.choose("crop_mode", mode, TIMM_MODES),
        channels="rgb",
        mean=mean,
        std=values.take_numbers("std"),
        fill=tuple(round(255 * value) for value in mean) if mode == "border" else None,
        file=values.file,
    )
    values.refuse_rest()
    return given


READERS = {
    ("resize_size",): _read_torchvision,
    ("pretrained_cfg", "input_size"): _read_timm,
    ("do_resize", "do_normalize", "image_mean", "image_processor_type"): read_hugging_face,
}
