"""How a model's pictures are prepared, as one sentence for people."""

from __future__ import annotations

from convoy.v1 import classifier_pb2 as pb

CHANNELS = {pb.RGB: "red, green and blue", pb.BGR: "blue, green and red"}
DEFAULT_FILL = (0, 0, 0)


def describe_preparation(model: pb.Model) -> str:
    """From the facts `preprocessing`, `input` and `manifest`; empty if there is no preprocessing.

    Such as "The shorter side is resized to 256 pixels (bilinear, antialiased), cropped to the
    centre 224×224, and red, green and blue normalised with mean 0.485, 0.456, 0.406 and std 0.229,
    0.224, 0.225; assumed, since the weights do not say it."
    """
    photo, digit = model.preprocessing.photo, model.preprocessing.digit
    match model.preprocessing.WhichOneof("kind"):
        case "photo":
            steps = [_resized(photo), _cropped(photo), _normalised(photo, model.input)]
        case "digit":
            steps = [
                "A digit is found in the picture",
                f"scaled to {digit.box} pixels, centred in {digit.size}×{digit.size}",
                f"and normalised with {_numbers(model.input)}",
            ]
        case _:
            return ""
    return f"{', '.join(filter(None, steps))}{_origin(model.manifest.preparation)}."


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
    channels = CHANNELS.get(photo.channel_order, "its channels")
    return f"and {channels} normalised with {_numbers(photo if photo.mean else taken)}"


def _numbers(said: pb.Photo | pb.Input) -> str:
    mean, std = (", ".join(f"{it:.4g}" for it in numbers) for numbers in (said.mean, said.std))
    return f"mean {mean} and std {std}"


def _origin(origin: pb.PreparationOrigin) -> str:
    if origin.source == "published":
        return "; as published with the weights"
    if origin.source == "assumed":
        return "; assumed, since the weights do not say it"
    by = f" by {origin.file}" if origin.file else ""
    assumed = f", but for what is assumed: {', '.join(origin.assumed)}" if origin.assumed else ""
    if origin.source == "given":
        return f"; as given{by}{assumed}"
    if origin.source == "found":
        answers = f"what another system answered to {origin.images} pictures ({origin.file})"
        return f"; found by {answers}{assumed}"
    return ""
