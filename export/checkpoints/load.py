"""A network's weights: `--weights imagenet` (download.py fetches them), `digits`, `random`
(random_weights.py), or a file: checkpoint_files.py reads it, weight_sets.py finds the weights in
it, state_dicts.py fits them. No weights are ever random unless they were asked for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from convoy.v1 import classifier_pb2 as pb
from export.catalog import Checkpoint, Network
from export.checkpoints.checkpoint_files import read_checkpoint
from export.checkpoints.choices import NO_CHOICES, Choices, check_choices, check_transform_input
from export.checkpoints.download import Downloads, fetch, is_published
from export.checkpoints.random_weights import random_network, state_sha256
from export.checkpoints.state_dicts import fit, has_transform_input
from export.errors import CheckpointError
from export.files import TRAINED_WEIGHTS, file_sha256, shown_name

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Loaded:
    """A network with its weights, and the facts about them."""

    network: nn.Module
    weights: pb.Weights
    preprocessing: pb.Preprocessing
    accuracy: tuple[pb.Accuracy, ...] = ()
    unfamiliar_threshold: float | None = None  # of the score of what is none of the classes
    temperature: float | None = None  # that the logits were divided by


def load(
    network: Network,
    weights: str,
    seed: int = 0,
    *,
    classes: int | None = None,
    choices: Choices = NO_CHOICES,
    downloads: Downloads | None = None,
) -> Loaded:
    """The network with the weights that `--weights` names.

    `classes` is the number of a user's own labels, if they are not the network's; `choices`
    are what a file does not tell; `downloads` says where published weights come from.

    Raises:
        CheckpointError: they are not available, or do not fit.
    """
    own = len(network.labels())
    classes = own if classes is None else classes
    if classes != own and (is_published(weights) or weights in ("digits", "random")):
        raise CheckpointError(
            f"The {weights} weights of {network.name} have {own} classes, and there are "
            f"{classes} labels: give the --weights FILE that was trained for them."
        )
    check_choices(weights, choices)
    if is_published(weights):
        path = fetch(_find_checkpoint(network, weights), downloads or Downloads())
        return _load_file(network, path, classes)
    match weights:
        case "random":
            return _load_random(network, seed)
        case "digits":
            return _load_digits(network, classes)
        case _:
            return _load_file(network, Path(weights), classes, choices)


# -------------------------------------------------------------------------------------- published


def _find_checkpoint(network: Network, weights: str) -> Checkpoint:
    """The checkpoint of this name; for "imagenet", the first."""
    for checkpoint in network.checkpoints:
        if weights in ("imagenet", checkpoint.source):
            return checkpoint
    if sources := [checkpoint.source for checkpoint in network.checkpoints]:
        raise CheckpointError(
            f"No {weights} weights of {network.name} are published: give --weights "
            f"{' or '.join(sources)}, FILE or random."
        )
    trained = (
        "--weights digits, which export/train.py trained, " if network.weights == "digits" else ""
    )
    raise CheckpointError(
        f"No weights of {network.name} are published: give {trained}--weights FILE with your own, "
        "or --weights random for seeded weights, whose answers are meaningless."
    )


def _identify(network: Network, sha256: str) -> Checkpoint | None:
    """The published checkpoint with this content, whatever the file's name."""
    matching = (file for file in network.checkpoints if sha256.startswith(file.sha256_prefix))
    return next(matching, None)


# ------------------------------------------------------------------------------------------ files


def _load_digits(network: Network, classes: int) -> Loaded:
    path = TRAINED_WEIGHTS / f"{network.name}.pth"
    if network.weights != "digits":
        raise CheckpointError(
            f"{network.name} is not trained on digits: give --weights imagenet, random or FILE."
        )
    if not path.exists():
        raise CheckpointError(
            f"There is no {path}: run `python export/train.py {network.name}`, "
            "or give --weights random."
        )
    loaded = _load_file(network, path, classes)
    facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    if facts["sha256"] != loaded.weights.sha256:
        raise CheckpointError(
            f"{path} is not the file that {path.stem}.json measured: "
            f"run `python export/train.py {network.name}` again."
        )
    weights = pb.Weights(source="digits", sha256=loaded.weights.sha256, file=shown_name(path))
    accuracy = tuple(pb.Accuracy(**entry) for entry in facts["accuracy"])
    return replace(
        loaded,
        weights=weights,
        preprocessing=network.preprocessing,
        accuracy=accuracy,
        unfamiliar_threshold=facts["unfamiliar"]["threshold"],
        temperature=facts["temperature"],
    )


def _load_file(network: Network, path: Path, classes: int, choices: Choices = NO_CHOICES) -> Loaded:
    if not path.is_file():
        raise CheckpointError(
            f"There is no file {path}: --weights takes imagenet, imagenet1k_v1, digits, random, "
            "or the path of a .pth or .safetensors."
        )
    sha256 = file_sha256(path)
    published = _identify(network, sha256)
    check_transform_input(
        network.name,
        path,
        choices,
        has_it=has_transform_input(network),
        is_published=published is not None,
    )
    module = fit(network, read_checkpoint(path), path, classes, choices)
    source = published.source if published else "file"
    return Loaded(
        module.eval(),
        pb.Weights(source=source, sha256=sha256, file=shown_name(path)),
        published.preprocessing if published else network.preprocessing,
    )


def _load_random(network: Network, seed: int) -> Loaded:
    module = random_network(network, seed)
    weights = pb.Weights(source="random", sha256=state_sha256(module.state_dict()))
    return Loaded(module, weights, network.preprocessing)
