"""How pictures are prepared elsewhere: the published recipes, and what is tried in their place.

A setting is a `Given` that says every aspect. The commonest values come first; of settings that
answer alike, the commonest is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from export.catalog import IMAGENET_MEAN, IMAGENET_STD
from export.errors import PreparationError
from export.preparation.given import MAX_SIDE, Given, Numbers

CAFFE_MEAN = (103.939 / 255, 116.779 / 255, 123.68 / 255)  # blue, green, red: VGG's
UNIT = (1.0, 1.0, 1.0)
PIXELS = (1 / 255, 1 / 255, 1 / 255)  # as a std: the network takes 0..255
ZERO = (0.0, 0.0, 0.0)
HALF = (0.5, 0.5, 0.5)


class Normalisation(NamedTuple):
    channels: str
    mean: Numbers  # in the order of the channels
    std: Numbers


TORCHVISION = Normalisation("rgb", IMAGENET_MEAN, IMAGENET_STD)
SIGNED = Normalisation("rgb", HALF, HALF)  # -1..1: Keras's "tf", Inception, ViT
FRACTIONS = Normalisation("rgb", ZERO, UNIT)  # 0..1: TensorFlow Hub
LEVELS = Normalisation("rgb", ZERO, PIXELS)  # 0..255: Keras's EfficientNet
CAFFE = Normalisation("bgr", CAFFE_MEAN, PIXELS)  # Keras's "caffe"
NORMALISATIONS = (
    TORCHVISION,
    SIGNED,
    FRACTIONS,
    LEVELS,
    CAFFE,
    # CLIP
    Normalisation("rgb", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    Normalisation("rgb", (127 / 255,) * 3, (128 / 255,) * 3),  # EfficientNet-Lite
    # CIFAR-10, with either of the deviations that are in use
    Normalisation("rgb", (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    Normalisation("rgb", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.201)),
    # OpenCV's order, with the numbers in that order, and as torchvision has them
    Normalisation("bgr", IMAGENET_MEAN[::-1], IMAGENET_STD[::-1]),
    Normalisation("bgr", IMAGENET_MEAN, IMAGENET_STD),
    Normalisation("bgr", ZERO, UNIT),
    Normalisation("bgr", HALF, HALF),
    Normalisation("bgr", ZERO, PIXELS),
    # Caffe's means: those of Keras in the other order, rounded, and MobileNet's scale
    Normalisation("rgb", CAFFE_MEAN[::-1], PIXELS),
    Normalisation("bgr", (104 / 255, 117 / 255, 123 / 255), PIXELS),
    Normalisation("bgr", CAFFE_MEAN, (1 / (0.017 * 255),) * 3),
    Normalisation("rgb", (124 / 255, 117 / 255, 104 / 255), (1 / (0.0167 * 255),) * 3),  # DPN
    Normalisation("rgb", IMAGENET_MEAN, UNIT),
    Normalisation("rgb", HALF, UNIT),
)
# What the libraries resize with: interpolation and antialiasing.
FILTERS = (
    ("bilinear", True),
    ("bicubic", True),
    ("bilinear", False),
    ("area", True),
    ("nearest", True),
    ("lanczos", True),
    ("bicubic", False),
    ("nearest", False),
    ("box", True),
)
# The crop as a fraction of the resized side; 224/232 is torchvision's second recipe.
CROPS = (0.875, 1.0, 224 / 232, 0.95, 0.9, 0.96, 0.94, 0.92, 0.98, 0.85, 0.8, 0.75, 0.7)
SQUASHED_CROPS = (1.0, 0.875, 0.9, 0.95)
STEPS = (1, 2, 3, 4, 6, 8, 12, 16)  # pixels around a side that fits
NEARBY = (0, 1, -1, 2, -2)
FILLS = (None, (114, 114, 114), (128, 128, 128), (255, 255, 255), (124, 116, 104))  # None: black

# Each as published: resize mode, crop as a fraction, filter, normalisation.
PUBLISHED = (
    ("shorter", 0.875, FILTERS[0], TORCHVISION),  # torchvision, the first weights
    ("shorter", 224 / 232, FILTERS[0], TORCHVISION),  # torchvision, the second
    ("shorter", 0.875, FILTERS[1], TORCHVISION),  # timm
    ("shorter", 0.95, FILTERS[1], TORCHVISION),
    ("shorter", 0.9, FILTERS[1], SIGNED),  # timm's ViT
    ("squash", 1.0, FILTERS[4], CAFFE),  # Keras: load_img and preprocess_input
    ("squash", 1.0, FILTERS[4], SIGNED),
    ("squash", 1.0, FILTERS[2], FRACTIONS),  # TensorFlow Hub: tf.image.resize
    ("squash", 1.0, FILTERS[2], LEVELS),  # Keras: EfficientNet
    ("squash", 1.0, FILTERS[2], SIGNED),  # Keras: image_dataset_from_directory, MobileNet
    ("squash", 1.0, FILTERS[0], SIGNED),  # Hugging Face's ViT
    ("squash", 1.0, FILTERS[0], FRACTIONS),
    ("squash", 0.875, FILTERS[2], CAFFE),  # Caffe
    ("shorter", 1.0, FILTERS[1], NORMALISATIONS[5]),  # CLIP
    ("shorter", 0.875, FILTERS[1], NORMALISATIONS[6]),  # EfficientNet-Lite
    ("shorter", 0.875, FILTERS[0], LEVELS),
    ("shorter", 1.0, FILTERS[0], FRACTIONS),
    ("pad", 1.0, FILTERS[0], TORCHVISION),
    ("pad", 1.0, FILTERS[2], FRACTIONS),  # detectors' letterbox
)


@dataclass(frozen=True)
class Space:
    """The settings that are tried for a network; what was said of them stays as it was said."""

    size: int  # pixels, the side of the network's input
    said: Given
    is_normalised: bool  # else it takes uint8 pixels

    def published(self) -> list[Given]:
        return self._settings(
            self._setting(mode, fraction, how, normalisation)
            for mode, fraction, how, normalisation in PUBLISHED
        )

    def normalisations(self, around: Given) -> list[Given]:
        return self._settings(
            replace(around, channels=channels, mean=mean, std=std)
            for channels, mean, std in NORMALISATIONS
        )

    def filters(self, around: Given) -> list[Given]:
        return self._settings(
            replace(around, interpolation=name, antialias=is_antialiased)
            for name, is_antialiased in FILTERS
        )

    def channels(self, around: Given) -> list[Given]:
        """The other order, with each number where it was, and with its colour."""
        other = replace(around, channels="bgr" if around.channels == "rgb" else "rgb")
        if other.mean is None or other.std is None:
            return self._settings([other])
        moved = replace(other, mean=other.mean[::-1], std=other.std[::-1])
        return self._settings([other, moved])

    def modes(self, around: Given) -> list[Given]:
        """Each mode with the sides and colours that are common with it."""
        return self._settings(
            replace(around, resize_mode=mode, resize=side, fill=fill)
            for mode, side, fill in self._geometries(around)
        )

    def sides(self, around: Given) -> list[Given]:
        assert around.resize
        near = (around.resize + sign * step for step in STEPS for sign in (1, -1))
        common = (self._side(fraction) for fraction in CROPS)
        return self._settings(replace(around, resize=side) for side in (*near, *common))

    def nearby(self, around: Given) -> list[Given]:
        """Each filter with sides that differ by few pixels."""
        assert around.resize
        sides = (replace(around, resize=around.resize + step) for step in NEARBY)
        return self._settings(it for side in sides for it in self.filters(side))

    def rarity(self, setting: Given) -> int:
        """The smaller, the commoner."""
        normalisation = (setting.channels, setting.mean, setting.std)
        filters = [*FILTERS, (setting.interpolation, setting.antialias)]
        normalisations = [*NORMALISATIONS, normalisation]
        geometries = [*self._geometries(setting)]
        geometry = (setting.resize_mode, setting.resize, setting.fill)
        return (
            filters.index((setting.interpolation, setting.antialias))
            + normalisations.index(normalisation)
            + [*geometries, geometry].index(geometry)
        )

    def _setting(
        self, mode: str, fraction: float, how: tuple[str, bool], normalisation: Normalisation
    ) -> Given:
        return Given(
            resize=self._side(fraction),
            crop=self.size,
            interpolation=how[0],
            antialias=how[1],
            resize_mode=mode,
            channels=normalisation.channels,
            mean=normalisation.mean,
            std=normalisation.std,
        )

    def _geometries(self, around: Given) -> Iterator[tuple[str, int, tuple[int, ...] | None]]:
        yield from (("shorter", self._side(fraction), None) for fraction in CROPS)
        yield from (("squash", self._side(fraction), None) for fraction in SQUASHED_CROPS)
        yield from (("pad", self.size, fill) for fill in FILLS)
        assert around.resize
        yield from ((mode, around.resize, None) for mode in ("shorter", "squash", "pad"))

    def _side(self, fraction: float) -> int:
        return math.floor(self.size / fraction + 1e-9)  # as timm; 224 / (224 / 232) is not 232

    def _settings(self, settings: Iterable[Given]) -> list[Given]:
        """Those that can be prepared, with what was said, each once."""
        return list(dict.fromkeys(filter(None, map(self._with_said, settings))))

    def _with_said(self, setting: Given) -> Given | None:
        if not self.is_normalised:
            setting = replace(setting, mean=None, std=None)
        assert setting.resize
        try:
            merged = replace(setting.updated(self.said), file="")
            if merged.resize_mode != "pad":
                merged = replace(merged, fill=None)
        except PreparationError:  # such as area without antialiasing
            return None
        assert merged.resize
        return merged if self.size <= merged.resize <= MAX_SIDE else None
