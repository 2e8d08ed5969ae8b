"""Real images as the networks see them, for measurements and proofs; and the types of such data.

Photos are crops of the two photographs in scikit-learn (china.jpg and flower.jpg, Creative Commons
BY); digits are the held-out ones of its data set. The same seed gives the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from export.catalog import Network

Pixels = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]  # N×K
Answer = Callable[[Pixels], Probabilities]  # a runtime with a network: N×H×W×C to N×K

PHOTOS = ("china.jpg", "flower.jpg")
# These sets share no crop. Random weights are initialised on the first, runtimes are compared on
# the second, and the served answer is compared on the third.
CALIBRATION_SEED, PROOF_SEED, SERVED_SEED = 1, 2, 3


@dataclass(frozen=True)
class Samples:
    names: tuple[str, ...]
    pixels: Pixels  # N×H×W×C

    def __len__(self) -> int:
        return len(self.names)


def samples(network: Network, count: int, seed: int) -> Samples:
    """Inputs for the network: digits for the digit networks, crops of photos for the others."""
    kind = network.preprocessing.WhichOneof("kind")
    return digits(count, seed) if kind == "digit" else crops(count, seed, network.size)


def photo(name: str) -> Image.Image:
    """One of PHOTOS, 640×427."""
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image(name))


def crops(count: int, seed: int, size: int) -> Samples:
    """Squares of the two photos in turn, 120 pixels to the full height, resized to size×size."""
    named = list(_crops(count, np.random.default_rng(seed), size))
    return Samples(tuple(name for name, _ in named), np.stack([pixels for _, pixels in named]))


def _crops(count: int, random: np.random.Generator, size: int) -> Iterator[tuple[str, Pixels]]:
    photos = [photo(name) for name in PHOTOS]
    for number in range(count):
        name, picture = PHOTOS[number % 2], photos[number % 2]
        side = int(random.integers(120, picture.height + 1))
        x = int(random.integers(picture.width - side + 1))
        y = int(random.integers(picture.height - side + 1))
        box = (x, y, x + side, y + side)
        square = picture.resize((size, size), Image.Resampling.BILINEAR, box=box)
        yield f"{name} {side}x{side}+{x}+{y}", np.asarray(square)


def digits(count: int, seed: int) -> Samples:
    """`count` different held-out digits, at most all 360."""
    from export.samples.digits import clean, data_set, random_fifth

    held_out = random_fifth().held_out
    numbers = np.random.default_rng(seed).permutation(len(held_out))[:count]
    rows = held_out[numbers]
    labels = data_set()[1][rows]
    names = zip(numbers, labels, strict=True)
    return Samples(tuple(f"held-out digit {n}, a {label}" for n, label in names), clean(rows))
