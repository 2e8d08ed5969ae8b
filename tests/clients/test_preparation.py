"""How pictures are prepared, in one sentence."""

from __future__ import annotations

import pytest

from convoy.preparation import describe_preparation
from convoy.v1 import classifier_pb2 as pb

INPUT = pb.Input(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
NORMALISED = "normalised with mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225"


@pytest.mark.parametrize(
    ("photo", "sentence"),
    [
        (
            pb.Photo(resize=256, crop=224),
            "The shorter side is resized to 256 pixels (bilinear, antialiased), cropped to the "
            f"centre 224×224, and red, green and blue {NORMALISED}.",
        ),
        (
            pb.Photo(resize=256, crop=224, resize_mode=pb.SQUASH, interpolation=pb.AREA),
            "The picture is squashed to 256×256 pixels (area), cropped to the centre 224×224, and "
            f"red, green and blue {NORMALISED}.",
        ),
        (
            pb.Photo(resize=224, crop=224, resize_mode=pb.SQUASH, antialias=False),
            "The picture is squashed to 224×224 pixels (bilinear, not antialiased), and red, green "
            f"and blue {NORMALISED}.",
        ),
        (
            pb.Photo(
                resize=224,
                crop=224,
                resize_mode=pb.PAD,
                interpolation=pb.BICUBIC,
                antialias=True,
                channel_order=pb.BGR,
                mean=(0, 0.5, 1),
                std=(1, 1, 1),
            ),
            "The longer side is resized to 224 pixels (bicubic, antialiased), padded with black or "
            "cropped to 224×224, and blue, green and red normalised with mean 0, 0.5, 1 and std 1, "
            "1, 1.",
        ),
        (
            pb.Photo(resize=224, crop=224, resize_mode=pb.PAD, fill=(124, 116, 104)),
            "The longer side is resized to 224 pixels (bilinear, antialiased), padded with the "
            "colour 124, 116, 104 or cropped to 224×224, and red, green and blue "
            f"{NORMALISED}.",
        ),
    ],
)
def test_it_says_all_of_it(photo: pb.Photo, sentence: str) -> None:
    model = pb.Model(preprocessing=pb.Preprocessing(photo=photo), input=INPUT)
    assert describe_preparation(model) == sentence


def test_a_digit_is_found() -> None:
    model = pb.Model(
        preprocessing=pb.Preprocessing(digit=pb.Digit(size=32, box=20)),
        input=pb.Input(mean=[0.0784], std=[0.784]),
    )
    assert describe_preparation(model) == (
        "A digit is found in the picture, scaled to 20 pixels, centred in 32×32, and normalised "
        "with mean 0.0784 and std 0.784."
    )


def test_of_what_is_not_loaded_nothing_is_said() -> None:
    assert describe_preparation(pb.Model(name="lenet5")) == ""


@pytest.mark.parametrize(
    ("origin", "end"),
    [
        (pb.PreparationOrigin(source="published"), "; as published with the weights."),
        (
            pb.PreparationOrigin(source="assumed", assumed=["resize"]),
            "; assumed, since the weights do not say it.",
        ),
        (pb.PreparationOrigin(source="given"), "; as given."),
        (
            pb.PreparationOrigin(source="given", file="config.json", assumed=["mean", "std"]),
            "; as given by config.json, but for what is assumed: mean, std.",
        ),
        (
            pb.PreparationOrigin(source="found", file="old.csv", images=12, assumed=["resize"]),
            "; found by what another system answered to 12 pictures (old.csv), but for what is "
            "assumed: resize.",
        ),
        (pb.PreparationOrigin(source="invented"), "0.225."),
    ],
)
def test_it_says_by_whose_word(origin: pb.PreparationOrigin, end: str) -> None:
    model = pb.Model(
        preprocessing=pb.Preprocessing(photo=pb.Photo(resize=256, crop=224)),
        input=INPUT,
        manifest=pb.Manifest(preparation=origin),
    )
    assert describe_preparation(model).endswith(end)
