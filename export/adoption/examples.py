"""Pictures of a user's own, as a golden image holds them: small JPEG files without metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageOps

from convoy.v1 import classifier_pb2 as pb
from export.errors import AdoptionError
from export.proof.golden import small_jpeg
from export.samples.folders import SUFFIXES, list_pictures, spread

MAX_EXAMPLES = 32
MAX_GOLDENS = 3


def read_examples(folder: Path) -> dict[str, bytes]:
    """At most 32 pictures of the folder, spread evenly, by relative path.

    Raises:
        AdoptionError: there is none, or one cannot be read.
    """
    if not folder.is_dir():
        raise AdoptionError(f"There is no folder {folder}: --examples takes one with pictures.")
    pictures = list_pictures(folder)
    if not pictures:
        raise AdoptionError(
            f"{folder} has no pictures ({', '.join(SUFFIXES)}): --examples takes a folder with a "
            "few of at least two classes."
        )
    return {name: _reencode(path) for name, path in spread(pictures, MAX_EXAMPLES).items()}


def _reencode(path: Path) -> bytes:
    try:
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture)
            return small_jpeg(upright.convert("RGB"))
    except Exception as error:  # Pillow's errors share no base class
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AdoptionError(f"The example {path} cannot be read: {reason}.") from error


def choose(goldens: list[pb.GoldenImage], model: str, *, are_samples: bool) -> list[pb.GoldenImage]:
    """At most three of them, of different classes where there are.

    Raises:
        AdoptionError: all are answered alike, which proves nothing.
    """
    first_of_class: dict[int, pb.GoldenImage] = {}
    for golden in goldens:
        first_of_class.setdefault(golden.expected[0].index, golden)
    scores = [golden.expected[0].score for golden in goldens]
    has_one_class = len(goldens[0].expected) == 1  # whose scores must differ then
    if has_one_class and max(scores) - min(scores) > 2 * goldens[0].tolerance:
        return sorted(goldens, key=lambda golden: golden.expected[0].score)[:: len(goldens) - 1]
    if len(first_of_class) == 1:
        raise AdoptionError(_same_answer(goldens, model, are_samples=are_samples))
    return list(first_of_class.values())[:MAX_GOLDENS]


def _same_answer(goldens: list[pb.GoldenImage], model: str, *, are_samples: bool) -> str:
    scores = [golden.expected[0].score for golden in goldens]
    alike = (
        f"{goldens[0].expected[0].label!r}, with scores of {min(scores):.2f} to {max(scores):.2f}"
    )
    if are_samples:
        return (
            f"{model} answers both sample photographs {alike}, which proves nothing: give "
            "--examples DIR with a few pictures of at least two classes."
        )
    return (
        f"{model} answers all {len(goldens)} examples {alike}. If they are of more than one class, "
        "it is fed wrongly: check --mean, --std and --channels; else give examples of another "
        "class as well."
    )


def origin(examples: Mapping[str, bytes]) -> str:
    """Which pictures the golden images are, for people."""
    if examples:
        return f"golden images: of {len(examples)} examples"
    return (
        "golden images: two sample photographs; give --examples DIR for those of your own classes"
    )
