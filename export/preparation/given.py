"""What is said of how pictures are prepared, and what that makes of a network's preparation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from convoy.v1 import classifier_pb2 as pb
from export.catalog import Network
from export.errors import PreparationError

INTERPOLATIONS = {
    "bilinear": pb.BILINEAR,
    "bicubic": pb.BICUBIC,
    "nearest": pb.NEAREST,
    "area": pb.AREA,
    "box": pb.BOX,
    "lanczos": pb.LANCZOS,
}
SAMPLED = ("bilinear", "bicubic", "nearest")  # those that torch does without antialiasing
RESIZE_MODES = {"shorter": pb.SHORTER, "squash": pb.SQUASH, "pad": pb.PAD}
CHANNEL_ORDERS = {"rgb": pb.RGB, "bgr": pb.BGR}
MAX_SIDE = 4096  # pixels, of what a gateway prepares

Numbers = tuple[float, ...]  # per channel

# What has to be known of a picture's preparation, in the words of a person: `assumed` has those.
ASPECTS = {
    "resize": "resize",
    "crop": "crop",
    "interpolation": "interpolation",
    "antialias": "antialiasing",
    "resize_mode": "resize mode",
    "channels": "channels",
    "mean": "mean",
    "std": "std",
}


@dataclass(frozen=True)
class Given:
    """What options and files say. None: they do not say it."""

    resize: int | None = None  # pixels
    crop: int | None = None  # pixels
    crop_fraction: float | None = None  # of the resized side
    interpolation: str | None = None
    antialias: bool | None = None
    resize_mode: str | None = None
    channels: str | None = None
    mean: Numbers | None = None  # of pixels in 0..1, in the order of `channels`
    std: Numbers | None = None
    fill: tuple[int, ...] | None = None  # red, green, blue
    file: str = ""  # the name of the file that says it

    def __post_init__(self) -> None:
        _check_sides(self)
        _check_choices(self)
        _check_numbers(self)

    def updated(self, other: Given) -> Given:
        """This, but what the other one says as the other one says it."""
        base = self
        if other.crop_fraction is not None:  # which says the side that is not given with it
            base = replace(self, crop=None) if other.resize else replace(self, resize=None)
        said = {field.name: getattr(other, field.name) for field in fields(other)}
        return replace(base, **{name: value for name, value in said.items() if value or value == 0})

    def prepare(self, network: Network) -> Network:
        """The network with this preparation, whichever weights it has.

        Raises:
            PreparationError: it cannot be prepared like that.
        """
        if self == Given():
            return network
        if network.reads_digits:
            raise PreparationError(
                f"{network.name} reads digits, which are prepared in one way: leave out the "
                "options of preparation."
            )
        photo = self.to_photo(network.preprocessing.photo)
        order = -1 if photo.channel_order == pb.BGR else 1
        return replace(
            network,
            size=photo.crop,
            mean=self.mean[::order] if self.mean else network.mean,
            std=self.std[::order] if self.std else network.std,
            preprocessing=pb.Preprocessing(photo=photo),
            checkpoints=tuple(
                replace(
                    checkpoint,
                    preprocessing=pb.Preprocessing(
                        photo=self.to_photo(checkpoint.preprocessing.photo)
                    ),
                )
                for checkpoint in network.checkpoints
            ),
        )

    def to_photo(self, assumed: pb.Photo) -> pb.Photo:
        """In the contract's words; `assumed` says what this does not.

        Raises:
            PreparationError: the crop is larger than what it is cut out of.
        """
        photo = pb.Photo()
        photo.CopyFrom(assumed)
        photo.resize, photo.crop = self._sides(assumed)
        if photo.crop > photo.resize:
            raise PreparationError(
                f"{photo.crop} pixels cannot be cropped from {photo.resize}: give --resize and "
                "--crop that fit."
            )
        if self.interpolation:
            photo.interpolation = INTERPOLATIONS[self.interpolation]
        if self.antialias is False:
            photo.antialias = False
        if self.resize_mode:
            photo.resize_mode = RESIZE_MODES[self.resize_mode]
        if self.channels:
            photo.channel_order = CHANNEL_ORDERS[self.channels]
        if self.fill:
            photo.fill[:] = self.fill
        return photo

    def _sides(self, assumed: pb.Photo) -> tuple[int, int]:
        resize, crop, fraction = self.resize, self.crop, self.crop_fraction
        if fraction is None:
            return resize or assumed.resize, crop or assumed.crop
        if resize:
            return resize, crop or round(resize * fraction)
        crop = crop or assumed.crop
        return math.floor(crop / fraction), crop  # as timm

    def record(self, model: pb.Model, network: Network) -> None:
        """Writes the network's input, and how it is prepared and by whose word, into the facts."""
        model.input.CopyFrom(network.input)
        if not network.reads_digits:
            photo, order = model.preprocessing.photo, -1 if network.is_bgr else 1
            photo.mean[:], photo.std[:] = network.mean[::order], network.std[::order]
        model.manifest.preparation.CopyFrom(self.origin(model.manifest.weights.source))

    def origin(self, source: str) -> pb.PreparationOrigin:
        """Where the preparation comes from, for weights of this source (Weights.source)."""
        is_published = source not in ("file", "random")
        missing = [] if is_published else [ASPECTS[name] for name in self._not_said()]
        if self == Given():
            return pb.PreparationOrigin(
                source="published" if is_published else "assumed", assumed=missing
            )
        return pb.PreparationOrigin(source="given", assumed=missing, file=self.file)

    def _not_said(self) -> list[str]:
        """A fraction says the crop; with nothing else, it says the resize as well."""
        said = {name for name in ASPECTS if getattr(self, name) is not None}
        if self.crop_fraction is not None:
            said |= {"crop", "resize"}
        if self.interpolation in ("nearest", "area"):
            said.add("antialias")
        return [name for name in ASPECTS if name not in said]


def _check_sides(given: Given) -> None:
    for name in ("resize", "crop"):
        side = getattr(given, name)
        if side is not None and not 1 <= side <= MAX_SIDE:
            raise PreparationError(f"{name} is {side}, must be 1 to {MAX_SIDE} pixels.")
    if given.crop_fraction is not None and not 0 < given.crop_fraction <= 1:
        raise PreparationError(
            f"The crop is {given.crop_fraction:g} of the resized side, must be above 0 and at "
            "most 1."
        )


def _check_choices(given: Given) -> None:
    for name, choices in (
        ("interpolation", INTERPOLATIONS),
        ("resize_mode", RESIZE_MODES),
        ("channels", CHANNEL_ORDERS),
    ):
        value = getattr(given, name)
        if value is not None and value not in choices:
            raise PreparationError(
                f"{ASPECTS[name]} is {value!r}, must be one of: {', '.join(choices)}."
            )
    if given.antialias is False and given.interpolation not in (None, *SAMPLED):
        raise PreparationError(
            f"No library does {given.interpolation} without antialiasing: leave it out, or give "
            f"{', '.join(SAMPLED)}."
        )


def _check_numbers(given: Given) -> None:
    for name in ("mean", "std", "fill"):
        numbers = getattr(given, name)
        if numbers is not None and (len(numbers) != 3 or not all(map(math.isfinite, numbers))):
            raise PreparationError(f"{name} is {_render(numbers)}, must be three numbers.")
    if given.mean and max(given.mean) > 1:
        raise PreparationError(
            f"mean is {_render(given.mean)}, must be of pixels in 0..1: divide mean and std by 255 "
            f"({_render([value / 255 for value in given.mean])})."
        )
    if given.std and min(given.std) <= 0:
        raise PreparationError(f"std is {_render(given.std)}, must be above 0.")
    if given.fill and not all(0 <= level <= 255 for level in given.fill):
        raise PreparationError(f"fill is {_render(given.fill)}, must be three of 0 to 255.")


def _render(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:.4g}" for number in numbers)
