"""Every network that can be built, one row each. Nothing else lists networks.

A row carries what is a fact of the network and not of one build: its architecture, what its input
is and how it is prepared, its labels, the published checkpoints, the paper, and how much two
runtimes may differ. Adding a network is adding a row; CONTRIBUTING.md has the steps.

Importing this module is cheap: the architectures, and torch with them, come in when one is built.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convoy.v1 import classifier_pb2 as pb
from export.errors import UnknownNetwork

if TYPE_CHECKING:
    from torch import nn

# The 1,000 classes of ImageNet-1k in the order of the networks' outputs: index, synset, name. The
# order is that of the sorted synset ids; the synsets are WordNet's (Princeton University, WordNet
# License), the names those of torchvision's models/_meta.py (BSD-3-Clause). Read by export alone: a
# model carries its own labels.
IMAGENET_CLASSES = Path(__file__).with_name("imagenet1k_classes.tsv")


@dataclass(frozen=True)
class Checkpoint:
    """A published file of weights; its name ends in the first 8 digits of its sha256."""

    source: str  # Weights.source: "imagenet1k_v2"
    file: str
    preprocessing: pb.Preprocessing  # as its makers measured it

    @property
    def sha256_prefix(self) -> str:
        return Path(self.file).stem.rpartition("-")[2]


@dataclass(frozen=True)
class Network:
    name: str
    paper: str
    architecture: str  # "module:builder" in export/architectures
    size: int  # pixels, the side of the square input
    mean: tuple[float, ...]  # a channel each, of pixels in 0..1
    std: tuple[float, ...]
    preprocessing: pb.Preprocessing  # where the checkpoint does not say otherwise
    labels: Callable[[], list[pb.Label]]
    weights: str  # what `--weights` is unless given: "imagenet", or "digits" where we train
    checkpoints: tuple[Checkpoint, ...] = ()  # the default one first
    max_batch_size: int = 8
    proof_images: int = 8  # how many two runtimes are compared on
    # Largest difference of a probability that is allowed: between PyTorch and ONNX Runtime in fp32
    # (3e-5 measured at most), and between fp32 and fp16.
    fp32_tolerance: float = 1e-4
    fp16_tolerance: float = 0.03
    # The same between the build and what a gateway answers to a golden image. Its decoder and its
    # resize may differ from ours by a grey level, its processor in the last bits.
    golden_tolerance: float = 0.05

    @property
    def tolerances(self) -> dict[str, float]:
        """By the precision that is compared with the runtime before it."""
        return {"fp32": self.fp32_tolerance, "fp16": self.fp16_tolerance}

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def input(self) -> pb.Input:
        return pb.Input(
            height=self.size, width=self.size, channels=self.channels, mean=self.mean, std=self.std
        )

    def build(self) -> nn.Module:
        """The architecture: normalised float N×C×H×W to logits N×K."""
        module, _, builder = self.architecture.partition(":")
        network: nn.Module = getattr(
            importlib.import_module(f"export.architectures.{module}"), builder
        )()
        return network


def digit_labels() -> list[pb.Label]:
    return [pb.Label(name=str(digit)) for digit in range(10)]


def imagenet_labels() -> list[pb.Label]:
    rows = IMAGENET_CLASSES.read_text(encoding="utf-8").splitlines()
    return [pb.Label(name=name, id=synset) for _, synset, name in (row.split("\t") for row in rows)]


def photo(resize: int, crop: int = 224) -> pb.Preprocessing:
    return pb.Preprocessing(photo=pb.Photo(resize=resize, crop=crop))


# Of ImageNet's pixels; every published checkpoint here was trained with them (torchvision).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

NETWORKS = (
    Network(
        name="lenet5",
        paper="LeCun, Bottou, Bengio, Haffner, Gradient-Based Learning Applied to Document "
        "Recognition, Proc. IEEE 86(11), 1998, doi 10.1109/5.726791",
        architecture="lenet:lenet5",
        size=32,
        # Pixels 0 (paper) and 1 (ink) become -0.1 and 1.175 (section II.B); export/digits.py trains
        # with the same two numbers, and a test compares them.
        mean=(0.1 / 1.275,),
        std=(1 / 1.275,),
        preprocessing=pb.Preprocessing(digit=pb.Digit(size=32, box=20)),
        labels=digit_labels,
        weights="digits",
        proof_images=360,
        golden_tolerance=0.02,  # the build asks the gateway's own preparation
    ),
    Network(
        name="resnet152",
        paper="He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, 2015, "
        "arXiv 1512.03385",
        architecture="resnet:resnet152",
        size=224,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        preprocessing=photo(resize=232),
        labels=imagenet_labels,
        weights="imagenet",
        checkpoints=(
            Checkpoint("imagenet1k_v2", "resnet152-f82ba261.pth", photo(resize=232)),
            Checkpoint("imagenet1k_v1", "resnet152-394f9c45.pth", photo(resize=256)),
        ),
    ),
)


def by_name(networks: Iterable[Network]) -> dict[str, Network]:
    """The rows by their names, which must all differ."""
    table: dict[str, Network] = {}
    for network in networks:
        if network.name in table:
            raise ValueError(f"two networks of the catalog are called {network.name!r}: rename one")
        table[network.name] = network
    return table


CATALOG = by_name(NETWORKS)


def find(name: str) -> Network:
    """The row of that name.

    Raises:
        UnknownNetwork: there is none; the message has the nearest names, or all.
    """
    if name in CATALOG:
        return CATALOG[name]
    near = difflib.get_close_matches(name.lower(), CATALOG, n=3, cutoff=0.5)
    names = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(CATALOG)}."
    raise UnknownNetwork(f"No network is called {name!r}: {names}")
