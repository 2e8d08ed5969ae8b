"""The options that say how pictures are prepared, the same for every command that has them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer

from export.errors import PreparationError
from export.files import file_sha256, shown_name
from export.preparation.files import read_preprocessing
from export.preparation.given import CHANNEL_ORDERS, INTERPOLATIONS, RESIZE_MODES, Given

Resize = Annotated[
    int | None,
    typer.Option(
        "--resize", metavar="N", help="Resize the shorter side (--resize-mode) to N pixels."
    ),
]
Crop = Annotated[
    str | None,
    typer.Option(
        "--crop",
        metavar="N|FRACTION",
        help="Crop the centre to N×N pixels, or to this fraction of the resized side.",
    ),
]
Interpolation = Annotated[
    str | None,
    typer.Option("--interpolation", metavar="|".join(INTERPOLATIONS), help="How it is resized."),
]
Antialias = Annotated[
    bool | None,
    typer.Option(
        "--antialias/--no-antialias",
        help="Resize as Pillow does, and torchvision on pictures; or without a filter, as "
        "torch.nn.functional.interpolate does.",
        show_default=False,
    ),
]
ResizeMode = Annotated[
    str | None,
    typer.Option(
        "--resize-mode",
        metavar="|".join(RESIZE_MODES),
        help="Resize the shorter side; both sides, whatever the proportions; or the longer side, "
        "and pad the shorter one.",
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean",
        metavar="X,Y,Z",
        help="Normalise with this mean per channel, of pixels in 0..1, in the order of --channels.",
    ),
]
Std = Annotated[
    str | None,
    typer.Option("--std", metavar="X,Y,Z", help="The same for the standard deviation."),
]
Channels = Annotated[
    str | None,
    typer.Option(
        "--channels",
        metavar="|".join(CHANNEL_ORDERS),
        help="The order in which the network reads red, green and blue; bgr is that of OpenCV.",
    ),
]
Fill = Annotated[
    str | None,
    typer.Option(
        "--fill",
        metavar="R,G,B",
        help="The colour that --resize-mode pad adds, each 0 to 255.",
        show_default="black",
    ),
]
Preprocessing = Annotated[
    Path | None,
    typer.Option(
        "--preprocessing",
        metavar="FILE",
        help="A file that says all this: timm's config.json, Hugging Face's "
        "preprocessor_config.json, or what `print(weights.transforms())` prints of torchvision's "
        "presets, as text or as JSON of the same names. Options take precedence over it.",
    ),
]


@dataclass(frozen=True)
class PreparationOptions:
    """The options as they were typed."""

    resize: Resize = None
    crop: Crop = None
    interpolation: Interpolation = None
    antialias: Antialias = None
    resize_mode: ResizeMode = None
    mean: Mean = None
    std: Std = None
    channels: Channels = None
    fill: Fill = None
    preprocessing: Preprocessing = None

    @cached_property
    def given(self) -> Given:
        """What they and the file say.

        Raises:
            PreparationError: they cannot be understood.
        """
        sides = _parse_crop(self.crop)
        typed = Given(
            resize=self.resize,
            **sides,
            interpolation=self.interpolation,
            antialias=self.antialias,
            resize_mode=self.resize_mode,
            mean=_parse_numbers("--mean", self.mean),
            std=_parse_numbers("--std", self.std),
            channels=self.channels,
            fill=_parse_levels(self.fill),
        )
        if not self.preprocessing:
            return typed
        return read_preprocessing(self.preprocessing).updated(typed)

    @property
    def words(self) -> list[str]:
        """For a command that does the same again; it names no path of this machine."""
        words = []
        for field in fields(self):
            value, flag = getattr(self, field.name), f"--{field.name.replace('_', '-')}"
            if isinstance(value, bool):
                words += [flag if value else f"--no{flag[1:]}"]
            elif value is not None:
                words += [flag, shown_name(value) if isinstance(value, Path) else str(value)]
        return words

    @property
    def file_sha256(self) -> str:
        """Of the file; empty if there is none, and one that is missing is reported by `given`."""
        path = self.preprocessing
        return file_sha256(path) if path and path.is_file() else ""


AS_PUBLISHED = PreparationOptions()  # nothing is said


def _parse_crop(text: str | None) -> dict[str, Any]:
    """Pixels, or a fraction: what is at most 1."""
    if text is None:
        return {}
    try:
        value = float(text)
    except ValueError as error:
        raise PreparationError(
            f"--crop is {text!r}, must be pixels, such as 224, or a fraction, such as 0.875."
        ) from error
    if value <= 1:
        return {"crop_fraction": value}
    if not value.is_integer():
        raise PreparationError(f"--crop is {text}, must be whole pixels, or a fraction up to 1.")
    return {"crop": int(value)}


def _parse_numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    """Three, or one for all channels."""
    if text is None:
        return None
    try:
        numbers = tuple(map(float, text.replace(",", " ").split()))
    except ValueError as error:
        raise PreparationError(
            f"{flag} is {text!r}, must be three numbers, such as 0.485,0.456,0.406."
        ) from error
    return numbers * 3 if len(numbers) == 1 else numbers


def _parse_levels(text: str | None) -> tuple[int, ...] | None:
    levels = _parse_numbers("--fill", text)
    return tuple(map(round, levels)) if levels else None
