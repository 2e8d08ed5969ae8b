"""What is decided before a file is wrapped: scores, batches, how pictures are prepared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from convoy.v1 import classifier_pb2 as pb
from export.adoption.classifier import Classifier, read_classifier
from export.adoption.endings import LOG_PROBABILITIES
from export.adoption.onnx_file import read_onnx_file
from export.adoption.options import AdoptOptions
from export.adoption.precision import precision_of
from export.adoption.wrapper import Scores
from export.catalog import IMAGENET_MEAN, IMAGENET_STD, Activation, Network, photo
from export.checkpoints.labels import read_labels
from export.errors import AdoptionError, PreparationError
from export.preparation.options import PreparationOptions

DEFAULT_MAX_BATCH = 8
PIXEL_MEAN, PIXEL_STD = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)  # pixels as they are


def decide(
    file: Path,
    labels: Path,
    outputs: str | None,
    activation_name: str,
    max_batch: int | None,
    preparation: PreparationOptions,
) -> AdoptOptions:
    """
    Raises:
        ExportError: the file cannot be adopted, or not with these options.
    """
    said = preparation.given
    given = read_classifier(read_onnx_file(file), said.crop or 0)
    scores = decide_scores(given, outputs)
    activation = decide_activation(given, activation_name)
    check_max_batch(given, max_batch or 1)
    check_classes(given, read_labels(labels), labels, activation)
    return AdoptOptions(
        network=network_of(given, preparation),
        precision=precision_of(given.file.model),
        weights=str(file),
        seed=0,
        repository=Path(),
        labels=labels,
        activation=activation,
        max_batch=max_batch,
        preparation=preparation,
        given=given,
        scores=scores,
        outputs=outputs,
    )


def decide_scores(given: Classifier, outputs: str | None) -> Scores:
    """
    Raises:
        AdoptionError: nobody says what the outputs are, or the file says otherwise.
    """
    name, ending = given.file.name, given.ending
    if outputs not in (None, *get_args(Scores)):
        raise AdoptionError(f"--outputs is {outputs!r}, must be logits or probabilities.")
    if ending.activation and outputs == "logits":
        raise AdoptionError(
            f"{name} ends with {ending.last_operator}, so its outputs are probabilities: leave out "
            "--outputs logits."
        )
    if ending.activation or outputs == "probabilities":
        return "probabilities"
    if outputs == "logits" or ending.last_operator == LOG_PROBABILITIES:
        return "logits"
    raise AdoptionError(
        f"{name} ends with {ending.last_operator or 'its input'}, which says not what its outputs "
        "are: give --outputs logits, to which softmax (or --activation) is added, or --outputs "
        "probabilities, which are served as they are."
    )


def decide_activation(given: Classifier, name: str) -> Activation:
    """
    Raises:
        AdoptionError: there is no such activation, or the file has the other one.
    """
    if given.ending.activation == "softmax" and name == "sigmoid":
        raise AdoptionError(f"{given.file.name} ends with Softmax: leave out --activation sigmoid.")
    if given.ending.activation == "sigmoid" or name == "sigmoid":
        return "sigmoid"
    if name == "softmax":
        return "softmax"
    raise AdoptionError(f"--activation is {name!r}, must be softmax or sigmoid.")


def check_classes(
    given: Classifier, labels: Sequence[pb.Label], path: Path, activation: Activation
) -> None:
    """
    Raises:
        AdoptionError: there is not one label per class, or there is but one class.
    """
    if given.classes != len(labels):
        raise AdoptionError(
            f"{given.file.name} scores {given.classes} classes, and {path} has {len(labels)} "
            "labels: give --labels FILE with one per class, in the order of the outputs."
        )
    if given.classes == 1 and activation == "softmax":
        raise AdoptionError(
            f"{given.file.name} has one output, which softmax scores 1 for every picture: give "
            "--activation sigmoid if that is the score of its label."
        )


def check_max_batch(given: Classifier, max_batch: int) -> None:
    """
    Raises:
        AdoptionError: the file does not take that many.
    """
    if given.batch and max_batch > given.batch:
        raise AdoptionError(
            f"{given.file.name} takes {given.batch} images at once: give --max-batch "
            f"{given.batch} or less, or export it with a dynamic batch axis."
        )


def network_of(given: Classifier, preparation: PreparationOptions) -> Network:
    """A row as the catalog has them, for this file alone.

    Raises:
        PreparationError: its pictures cannot be prepared like that.
    """
    said = preparation.given
    if given.takes_pixels and (said.mean or said.std):
        raise PreparationError(
            f"{given.file.name} takes uint8 pixels, which are not normalised: leave out --mean and "
            "--std."
        )
    size = given.size
    cuts = said.resize_mode in (None, "shorter")  # as the published networks were trained
    row = Network(
        name="",
        paper="",
        architecture="",
        size=size,
        mean=PIXEL_MEAN if given.takes_pixels else IMAGENET_MEAN,
        std=PIXEL_STD if given.takes_pixels else IMAGENET_STD,
        preprocessing=photo(resize=round(size * 256 / 224) if cuts else size, crop=size),
        labels=list,
        weights="",
        max_batch_size=given.batch or DEFAULT_MAX_BATCH,
    )
    network = said.prepare(row)
    if network.size != size:
        raise PreparationError(
            f"{given.file.name} takes {size}×{size} pixels, and pictures are cropped to "
            f"{network.size}×{network.size}: give --crop {size}."
        )
    return network
