"""How each digit network that ships is trained."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingRecipe:
    """Stochastic gradient descent on the cross entropy; each epoch redraws each digit once."""

    epochs: int
    rate: float  # the maximum: reached after two epochs, then down to 0 along a cosine
    batch: int = 64
    momentum: float = 0.9
    weight_decay: float = 5e-4
    channels_last: bool = True  # memory layout: reduces the time by a quarter to a third
    nondigits: float = 0.1  # of what is no digit, for each digit of a batch
    drawings: bool = True  # whether scikit-learn's digits are shown on large sheets as well


# By the network's name in the catalog.
RECIPES = {
    "lenet5": TrainingRecipe(epochs=40, rate=0.02, batch=32, channels_last=False),
    "vgg_digits": TrainingRecipe(epochs=8, rate=0.03),
    "nin_digits": TrainingRecipe(epochs=8, rate=0.05),
    "inception_digits": TrainingRecipe(epochs=10, rate=0.05),
    "plain20_digits": TrainingRecipe(epochs=5, rate=0.05),
    "resnet20_digits": TrainingRecipe(epochs=5, rate=0.05),
}
