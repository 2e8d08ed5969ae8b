"""The pictures that a reference system answered, and how far other answers are from its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from export.adoption.detective.predictions import Prediction, Predictions
from export.adoption.given import sigmoid, softmax
from export.catalog import Activation
from export.errors import AdoptionError
from export.samples.folders import list_pictures, spread
from export.samples.images import Probabilities

MAX_PICTURES = 64
MAX_PIXELS = 200_000_000  # of all pictures, which are kept decoded
NEAR_TIE = 0.02  # by so much another label may be ahead of the reference's
LIMITS = (-1e-3, 1 + 1e-3)  # probabilities are between
SUM_TOLERANCE = 0.02  # of probabilities; more where they were rounded


@dataclass(frozen=True)
class Reference:
    names: tuple[str, ...]
    pictures: tuple[Image.Image, ...]  # upright, RGB
    labels: npt.NDArray[np.int64]  # N: its best classes
    scores: Probabilities | None  # N×K, NaN where it says none; None: it says labels alone
    resolution: float  # differences below it say nothing
    found: int  # how many pictures have predictions

    def __len__(self) -> int:
        return len(self.names)

    def spread(self, most: int) -> Reference:
        """At most so many of its pictures, evenly."""
        count = min(most, len(self))
        rows = [n * len(self) // count for n in range(count)]
        return Reference(
            tuple(self.names[row] for row in rows),
            tuple(self.pictures[row] for row in rows),
            self.labels[rows],
            None if self.scores is None else self.scores[rows],
            self.resolution,
            self.found,
        )

    def differences(self, answers: Probabilities) -> Probabilities:
        """Per picture: the largest of a score; or by how much another label is ahead of its own."""
        if self.scores is not None:
            largest: Probabilities = np.nanmax(np.abs(answers - self.scores), axis=1)
            return largest
        margins = answers.max(axis=1) - answers[np.arange(len(self)), self.labels]
        return np.where(margins > NEAR_TIE, margins, 0).astype(np.float32)

    def agreeing(self, answers: Probabilities) -> int:
        """How many pictures get the reference's label."""
        return int((answers.argmax(axis=1) == self.labels).sum())


def read_reference(
    folder: Path, predictions: Predictions, classes: int, activation: Activation
) -> Reference:
    """Decodes the pictures of the folder that have predictions, at most 64 spread evenly.

    Raises:
        AdoptionError: there are none, or one cannot be read, or the scores are no scores.
    """
    if not folder.is_dir():
        raise AdoptionError(f"There is no folder {folder}: --examples takes one with pictures.")
    paths = list_pictures(folder)
    matched = _match(paths, predictions)
    if not matched:
        first = next(iter(predictions.by_name))
        raise AdoptionError(
            f"{predictions.file} has predictions of none of the pictures in {folder}: it names "
            f"{first!r}, and must name paths below the folder."
        )
    pictures: dict[str, Image.Image] = {}
    for name, path in spread({name: paths[name] for name in matched}, MAX_PICTURES).items():
        pictures[name] = _decode(path)
        if sum(picture.width * picture.height for picture in pictures.values()) > MAX_PIXELS:
            break
    chosen = [matched[name] for name in pictures]
    return Reference(
        names=tuple(pictures),
        pictures=tuple(pictures.values()),
        labels=np.array([prediction.label for prediction in chosen]),
        scores=_scores(predictions, chosen, classes, activation),
        resolution=max(1e-5, 0.5 * 10**-predictions.digits) if predictions.has_scores else 1e-5,
        found=len(matched),
    )


def _match(pictures: Iterable[str], predictions: Predictions) -> dict[str, Prediction]:
    """By the path below the folder; or by the file's name, where no other has it."""
    by_file = _only_ones(predictions.by_name)
    only = _only_ones(pictures)
    matched = {}
    for name in pictures:
        file = _file(name)
        if name in predictions.by_name:
            matched[name] = predictions.by_name[name]
        elif only.get(file) == name and file in by_file:
            matched[name] = predictions.by_name[by_file[file]]
    return matched


def _only_ones(names: Iterable[str]) -> dict[str, str]:
    """The names by those of their files, but for files whose name is that of others as well."""
    counts = Counter(map(_file, names))
    return {_file(name): name for name in names if counts[_file(name)] == 1}


def _file(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def _decode(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except Exception as error:  # Pillow's errors share no base class
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AdoptionError(f"The example {path} cannot be read: {reason}.") from error


def _scores(
    predictions: Predictions,
    chosen: Sequence[Prediction],
    classes: int,
    activation: Activation,
) -> Probabilities | None:
    if not predictions.has_scores:
        return None
    scores = np.full((len(chosen), classes), np.nan, np.float32)
    for row, prediction in zip(scores, chosen, strict=True):
        row[list(prediction.scores)] = list(prediction.scores.values())
    is_whole = not np.isnan(scores).any()
    rounded = classes * 0.5 * 10**-predictions.digits
    if not _are_logits(scores, activation, SUM_TOLERANCE + rounded):
        return scores
    if is_whole:
        return softmax(scores) if activation == "softmax" else sigmoid(scores)
    raise AdoptionError(
        f"{predictions.file} has scores of {np.nanmin(scores):.3g} to {np.nanmax(scores):.3g}, "
        "which are no probabilities: give those, or the logits of all classes."
    )


def _are_logits(scores: Probabilities, activation: Activation, tolerance: float) -> bool:
    lowest, highest = LIMITS
    if np.nanmin(scores) < lowest or np.nanmax(scores) > highest:
        return True
    if activation == "sigmoid" or np.isnan(scores).any():
        return False
    return bool(np.abs(scores.sum(axis=1) - 1).max() > tolerance)
