"""What is said of the preparation, what it makes of a network, and what is assumed."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from convoy.v1 import classifier_pb2 as pb
from export.catalog import find
from export.errors import PreparationError
from export.layers import check_size
from export.preparation.given import Given


def test_nothing_said_changes_nothing() -> None:
    assert Given().prepare(find("resnet50")) is find("resnet50")


def test_all_that_is_said_is_in_the_networks_row() -> None:
    given = Given(
        resize=300,
        crop=256,
        interpolation="bicubic",
        antialias=False,
        resize_mode="pad",
        channels="bgr",
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
        fill=(1, 2, 3),
    )
    network = given.prepare(find("resnet50"))
    assert network.size == 256
    assert network.preprocessing.photo == pb.Photo(
        resize=300,
        crop=256,
        interpolation=pb.BICUBIC,
        antialias=False,
        resize_mode=pb.PAD,
        channel_order=pb.BGR,
        fill=(1, 2, 3),
    )
    # The graph's input is red, green, blue.
    assert (network.mean, network.std) == ((0.3, 0.2, 0.1), (0.6, 0.5, 0.4))
    assert find("resnet50").preprocessing.photo.resize == 232  # the catalog's own row is untouched


def test_what_is_not_said_is_each_checkpoints_own() -> None:
    network = Given(interpolation="bicubic").prepare(find("resnet50"))
    photos = [checkpoint.preprocessing.photo for checkpoint in network.checkpoints]
    assert [photo.resize for photo in photos] == [232, 256]
    assert {photo.interpolation for photo in photos} == {pb.BICUBIC}


@pytest.mark.parametrize(
    ("given", "sides"),
    [
        (Given(crop_fraction=0.875), (256, 224)),
        (Given(crop_fraction=0.95), (235, 224)),
        (Given(crop_fraction=0.9, crop=299), (332, 299)),
        (Given(crop_fraction=0.875, resize=320), (320, 280)),
        (Given(resize=256), (256, 224)),
        (Given(resize=256, crop=256), (256, 256)),
    ],
)
def test_a_fraction_is_resolved_to_pixels(given: Given, sides: tuple[int, int]) -> None:
    photo = given.prepare(find("resnet18")).preprocessing.photo
    assert (photo.resize, photo.crop) == sides


def test_options_take_precedence_over_a_file() -> None:
    file = Given(resize=256, crop=224, antialias=True, interpolation="bilinear", file="config.json")
    typed = Given(antialias=False, crop_fraction=0.95)
    both = file.updated(typed)
    assert both == Given(
        crop=224, crop_fraction=0.95, antialias=False, interpolation="bilinear", file="config.json"
    )
    assert file.updated(Given()) == file


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"resize": 0}, "resize is 0, must be 1 to 4096"),
        ({"crop": 5000}, "crop is 5000"),
        ({"crop_fraction": 1.5}, "crop is 1.5 of the resized side"),
        ({"interpolation": "cubic"}, "interpolation is 'cubic', must be one of: bilinear, bicubic"),
        ({"resize_mode": "fit"}, "resize mode is 'fit'"),
        ({"channels": "grey"}, "channels is 'grey'"),
        ({"interpolation": "area", "antialias": False}, "No library does area without"),
        ({"mean": (0.5,)}, "mean is 0.5, must be three numbers"),
        ({"mean": (float("nan"), 0, 0)}, "mean is nan, 0, 0"),
        (
            {"mean": (123.675, 116.28, 103.53)},
            r"divide mean and std by 255 \(0.485, 0.456, 0.406\)",
        ),
        ({"std": (0.5, 0.0, 0.5)}, "std is 0.5, 0, 0.5, must be above 0"),
        ({"fill": (0, 0, 256)}, "fill is 0, 0, 256"),
    ],
)
def test_what_cannot_be_is_said_at_once(said: dict[str, object], message: str) -> None:
    with pytest.raises(PreparationError, match=message):
        Given(**said)  # type: ignore[arg-type]


def test_a_crop_that_is_larger_than_the_resize_names_both() -> None:
    with pytest.raises(PreparationError, match="288 pixels cannot be cropped from 256: give --res"):
        Given(crop=288).prepare(find("resnet18"))


def test_networks_of_digits_have_no_other_preparation() -> None:
    with pytest.raises(PreparationError, match="lenet5 reads digits"):
        Given(resize=32).prepare(find("lenet5"))


def test_a_size_that_the_network_does_not_read_is_named() -> None:
    network = Given(resize=300, crop=259).prepare(find("alexnet_2012"))
    with torch.device("meta"):
        module = network.build()
    with pytest.raises(PreparationError, match="alexnet_2012 does not read 259×259 pixels: leave"):
        check_size(module, network)
    check_size(module, find("alexnet_2012"))


# ------------------------------------------------------------------------------ where it is from

ALL = ["resize", "crop", "interpolation", "antialiasing", "resize mode", "channels", "mean", "std"]


def test_of_ones_own_weights_everything_is_assumed() -> None:
    assert Given().origin("file") == pb.PreparationOrigin(source="assumed", assumed=ALL)


@pytest.mark.parametrize("source", ["imagenet1k_v2", "digits"])
def test_of_published_weights_nothing_is_assumed(source: str) -> None:
    assert Given().origin(source) == pb.PreparationOrigin(source="published")
    assert Given(resize=256).origin(source) == pb.PreparationOrigin(source="given")


def test_what_is_not_given_with_ones_own_weights_is_assumed() -> None:
    said = Given(crop_fraction=0.875, interpolation="nearest", channels="rgb", mean=(0, 0, 0))
    assert said.origin("file").assumed == ["resize mode", "std"]
    assert dataclasses.replace(said, std=(1, 1, 1), resize_mode="pad").origin("file").assumed == []


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_the_facts_say_it_in_the_networks_order_and_the_inputs(channels: str) -> None:
    given = Given(channels=channels, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    network, model = given.prepare(find("resnet18")), pb.Model()
    model.preprocessing.CopyFrom(network.preprocessing)
    given.record(model, network)
    order = -1 if channels == "bgr" else 1
    assert list(model.preprocessing.photo.mean) == [0.1, 0.2, 0.3]
    assert list(model.preprocessing.photo.std) == [0.4, 0.5, 0.6]
    assert list(model.input.mean) == [0.1, 0.2, 0.3][::order]
    assert list(model.input.std) == [0.4, 0.5, 0.6][::order]
