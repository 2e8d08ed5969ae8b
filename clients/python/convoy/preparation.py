"""How a model's pictures are prepared, as one sentence for people."""

from __future__ import annotations

from collections.abc import Iterable

from convoy.v1 import classifier_pb2 as pb

CHANNELS = {pb.RGB: "red, green and blue", pb.BGR: "blue, green and red"}
DEFAULT_FILL = (0, 0, 0)


def describe_preparation(preprocessing: pb.Preprocessing, taken: pb.Input) -> str:
    """`taken` is the network's input: Model.input. Empty if there is no preprocessing."""
    kind = preprocessing.WhichOneof("kind")
    if kind == "digit":
        digit = preprocessing.digit
        return (
            f"A digit is extracted from the picture, scaled to {digit.box} pixels, centred in "
            f"{digit.size}×{digit.size}, and normalised with mean {_numbers(taken.mean)} and "
            f"std {_numbers(taken.std)}."
        )
    if kind == "photo":
        photo = preprocessing.photo
        steps = [_resized(photo), _cropped(photo), _normalised(photo, taken)]
        return f"{', '.join(step for step in steps if step)}."
    return ""


def _resized(photo: pb.Photo) -> str:
    how, side = _filter(photo), photo.resize
    if photo.resize_mode == pb.SQUASH:
        return f"The picture is squashed to {side}×{side} pixels ({how})"
    which = "longer" if photo.resize_mode == pb.PAD else "shorter"
    return f"The {which} side is resized to {side} pixels ({how})"


def _filter(photo: pb.Photo) -> str:
    name = pb.Interpolation.Name(photo.interpolation).lower()
    if photo.interpolation == pb.AREA:
        return name
    is_sampled = photo.HasField("antialias") and not photo.antialias
    return f"{name}, {'not antialiased' if is_sampled else 'antialiased'}"


def _cropped(photo: pb.Photo) -> str:
    size = f"{photo.crop}×{photo.crop}"
    if photo.resize_mode == pb.PAD:
        fill = tuple(photo.fill) or DEFAULT_FILL
        colour = "black" if fill == DEFAULT_FILL else f"the colour {', '.join(map(str, fill))}"
        return f"padded with {colour} or cropped to {size}"
    if photo.resize_mode == pb.SQUASH and photo.crop == photo.resize:
        return ""
    return f"cropped to the centre {size}"


def _normalised(photo: pb.Photo, taken: pb.Input) -> str:
    mean, std = photo.mean or taken.mean, photo.std or taken.std
    channels = CHANNELS.get(photo.channel_order, "its channels")
    return f"and {channels} normalised with mean {_numbers(mean)} and std {_numbers(std)}"


def _numbers(numbers: Iterable[float]) -> str:
    return ", ".join(f"{number:.4g}" for number in numbers)
