"""What a file of weights does not tell, and its owner must."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from export.catalog import Activation
from export.checkpoints import download
from export.errors import CheckpointError


@dataclass(frozen=True)
class Choices:
    """The fields are explained where their options are, in cli_options.py."""

    weights_key: str | None = None
    transform_input: bool | None = None
    activation: Activation = "softmax"


NO_CHOICES = Choices()


def check_choices(weights: str, choices: Choices) -> None:
    """
    Raises:
        CheckpointError: the weights are not a file, and leave no choice.
    """
    if not download.is_published(weights) and weights not in ("digits", "random"):
        return
    given = {
        "--weights-key": choices.weights_key is not None,
        "--transform-input": choices.transform_input is True,
        "--no-transform-input": choices.transform_input is False,
        # Random weights were trained with neither.
        f"--activation {choices.activation}": choices.activation != "softmax"
        and weights != "random",
    }
    for option, is_given in given.items():
        if is_given:
            raise CheckpointError(
                f"{option} is for a FILE of your own, and --weights is {weights}: leave it out."
            )


def check_transform_input(
    network: str, path: Path, choices: Choices, *, has_it: bool, is_published: bool
) -> None:
    """
    Raises:
        CheckpointError: the network normalises pixels again or does not, and nobody says which; or
            what is said is wrong.
    """
    if is_published and choices.transform_input is False:
        raise CheckpointError(
            f"{path} has the published weights of {network}, which were trained with "
            "transform_input: leave --no-transform-input out."
        )
    if has_it and choices.transform_input is None and not is_published:
        raise CheckpointError(
            f"{path} does not tell whether {network} was trained with transform_input, which "
            "normalises pixels again, from ImageNet's mean and deviation to 0.5 and 0.5: give "
            "--transform-input for weights that were fine-tuned from torchvision's published ones, "
            "which have it on, or --no-transform-input for a network that was made without "
            "weights, which has it off unless the training's code says otherwise."
        )
    if not has_it and choices.transform_input is not None:
        option = "--transform-input" if choices.transform_input else "--no-transform-input"
        raise CheckpointError(
            f"{option} is for googlenet and inception_v3, and {network} never normalises pixels "
            "again: leave it out."
        )
