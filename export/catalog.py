"""Every network that can be built, one row each. This is the only list of networks.

A row has the facts of the network that hold for all its builds: its architecture, its input and
preprocessing, its labels, the published checkpoints, the paper, and how much two runtimes may
differ. To add a network, add a row; CONTRIBUTING.md has the steps.

Importing this module is cheap: the architectures, and torch with them, are imported when a network
is built.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from convoy.preparation import describe_preparation
from convoy.v1 import classifier_pb2 as pb
from export.errors import UnknownNetwork

if TYPE_CHECKING:
    from torch import nn

# The 1,000 classes of ImageNet-1k in the order of the networks' outputs: index, synset, name. The
# order is that of the sorted synset ids; the synsets are WordNet's (Princeton University, WordNet
# License), the names are from torchvision's models/_meta.py (BSD-3-Clause). Only export reads this
# file: a model carries its own labels.
IMAGENET_CLASSES = Path(__file__).with_name("imagenet1k_classes.tsv")

# The input of every graph, uint8 N×H×W×C, and its outputs: float32 N×K; int32 N×1, the number of
# images in the batch.
INPUT, PROBABILITIES, BATCH_SIZE = "image", "probabilities", "batch_size"
# What makes scores of a network's outputs: softmax, of one class per picture; or sigmoid, of each
# class for itself.
Activation = Literal["softmax", "sigmoid"]
# What a graph may give besides; export/conversion/evidence.py says what it is.
HEATMAPS, HEATMAP_CLASSES, FEATURES = "heatmaps", "heatmap_classes", "features"
UNFAMILIAR, LAYER_PREFIX = "unfamiliar", "layer_"
MAX_HEATMAPS = 5  # classes
# Cells of a heat-map by occlusion, along each side: the gateway covers one after the other.
OCCLUSION_SIDE = 7

# The largest file of a golden image: config.pbtxt carries it.
MAX_GOLDEN_BYTES = 16_000

# A digit as the digit networks see it: the side of the square and the longest side of the digit in
# it, in pixels. The graph normalises pixels in 0..1: paper becomes -0.1 and ink 1.175, the levels
# of LeCun 1998 (section II.B), which give inputs a mean near 0 and a variance near 1.
DIGIT_SIZE, DIGIT_BOX = 32, 20
DIGIT_MEAN, DIGIT_STD = 0.1 / 1.275, 1 / 1.275


def is_evidence_name(output: str) -> bool:
    """Whether a graph's output is one of those that it may give besides."""
    known = (HEATMAPS, HEATMAP_CLASSES, FEATURES, UNFAMILIAR)
    return output in known or output.startswith(LAYER_PREFIX)


@dataclass(frozen=True)
class Checkpoint:
    """A published file of weights; its name ends in the first 8 of 64 digits of its sha256."""

    source: str  # Weights.source: "imagenet1k_v2"
    file: str
    preprocessing: pb.Preprocessing  # with which its authors measured it

    @property
    def sha256_prefix(self) -> str:
        return Path(self.file).stem.rpartition("-")[2]


@dataclass(frozen=True)
class Network:
    name: str
    paper: str
    architecture: str  # "module:builder" in export/architectures
    size: int  # pixels, the side of the square input
    mean: tuple[float, ...]  # of red, green and blue, or of grey; of pixels in 0..1
    std: tuple[float, ...]
    preprocessing: pb.Preprocessing  # unless the checkpoint has its own
    labels: Callable[[], list[pb.Label]]
    weights: str  # the default of `--weights`: "imagenet", or "digits" where we train
    checkpoints: tuple[Checkpoint, ...] = ()  # the default one first
    max_batch_size: int = 8  # of a file that CPUs serve too, where larger batches gain nothing
    plan_max_batch_size: int = 64  # of a TensorRT plan: a GPU needs many images to be busy
    proof_images: int = 8  # on which two runtimes are compared
    # The largest difference of a probability that each rung of the ladder allows: from PyTorch to
    # ONNX Runtime in fp32 (measured: at most 3e-5); from fp32 to fp16 or int8; from the ONNX file
    # to the engine, or to itself on a GPU; from the file to itself behind the gateway.
    fp32_tolerance: float = 1e-4
    fp16_tolerance: float = 0.03
    random_fp16_tolerance: float = 0.03  # images that random weights are unsure of move most
    int8_tolerance: float = 0.3
    engine_tolerance: float = 0.03
    served_tolerance: float = 1e-3
    # The same between the build's answer to a golden image and a gateway's. The gateway's decoder
    # and resize may differ from ours by one grey level, its processor in the last bits.
    golden_tolerance: float = 0.05

    def tolerance(self, rung: str, *, is_random: bool) -> float:
        """Returns the tolerance of a rung: "fp32", "fp16", "int8" or "engine"."""
        random = "random_" if rung == "fp16" and is_random else ""
        tolerance: float = getattr(self, f"{random}{rung}_tolerance")
        return tolerance

    @property
    def reads_digits(self) -> bool:
        return self.preprocessing.HasField("digit")

    @property
    def is_bgr(self) -> bool:
        return self.preprocessing.photo.channel_order == pb.BGR

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def input(self) -> pb.Input:
        return pb.Input(
            height=self.size, width=self.size, channels=self.channels, mean=self.mean, std=self.std
        )

    @property
    def preparation(self) -> str:
        """How its pictures are prepared, unless the weights have their own: for people."""
        return describe_preparation(pb.Model(preprocessing=self.preprocessing, input=self.input))

    def build(self) -> nn.Module:
        """Returns the architecture: normalised float N×C×H×W to logits N×K."""
        return build(self.architecture)


def build(architecture: str) -> nn.Module:
    """Returns the network of "module:builder" in export/architectures."""
    module, _, builder = architecture.partition(":")
    network: nn.Module = getattr(
        importlib.import_module(f"export.architectures.{module}"), builder
    )()
    return network


def digit_labels() -> list[pb.Label]:
    return [pb.Label(name=str(digit)) for digit in range(10)]


def cifar10_labels() -> list[pb.Label]:
    """Returns the classes in the order of the data set's batches.meta (Krizhevsky 2009)."""
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    return [pb.Label(name=name) for name in names.split()]


def imagenet_labels() -> list[pb.Label]:
    rows = IMAGENET_CLASSES.read_text(encoding="utf-8").splitlines()
    return [pb.Label(name=name, id=synset) for _, synset, name in (row.split("\t") for row in rows)]


def photo(resize: int, crop: int = 224) -> pb.Preprocessing:
    return pb.Preprocessing(photo=pb.Photo(resize=resize, crop=crop))


# Statistics of ImageNet's pixels; every published checkpoint here was trained with them
# (torchvision).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# The papers' references.
LECUN_1998 = (
    "LeCun, Bottou, Bengio, Haffner, Gradient-Based Learning Applied to Document Recognition, "
    "Proc. IEEE 86(11), 1998, doi 10.1109/5.726791"
)
KRIZHEVSKY_2012 = (
    "Krizhevsky, Sutskever, Hinton, ImageNet Classification with Deep Convolutional Neural "
    "Networks, NIPS 2012, doi 10.1145/3065386"
)
KRIZHEVSKY_2014 = (
    "Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014, "
    "arXiv 1404.5997"
)
LIN_2013 = "Lin, Chen, Yan, Network In Network, 2013, arXiv 1312.4400"
SIMONYAN_2014 = (
    "Simonyan, Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, "
    "2014, arXiv 1409.1556"
)
SZEGEDY_2014 = "Szegedy et al., Going Deeper with Convolutions, 2014, arXiv 1409.4842"
SZEGEDY_2015 = (
    "Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, Rethinking the Inception Architecture for "
    "Computer Vision, 2015, arXiv 1512.00567"
)
HE_2015 = (
    "He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, 2015, arXiv 1512.03385"
)


def imagenet_network(
    name: str,
    paper: str,
    module: str,
    *files: str,
    size: int = 224,
    resize: int = 256,
    random_fp16_tolerance: float = 0.03,
) -> Network:
    """A network with ImageNet's classes; `files` are its published checkpoints, version 1."""
    preprocessing = photo(resize, size)
    return Network(
        name=name,
        paper=paper,
        architecture=f"{module}:{name}",
        size=size,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        preprocessing=preprocessing,
        labels=imagenet_labels,
        weights="imagenet",
        checkpoints=tuple(Checkpoint("imagenet1k_v1", file, preprocessing) for file in files),
        random_fp16_tolerance=random_fp16_tolerance,
    )


def deep_resnet(name: str, v2: str, v1: str) -> Network:
    """Published twice, each with its own resize; the second is more accurate."""
    return replace(
        imagenet_network(name, HE_2015, "resnet", resize=232),
        checkpoints=(
            Checkpoint("imagenet1k_v2", v2, photo(resize=232)),
            Checkpoint("imagenet1k_v1", v1, photo(resize=256)),
        ),
    )


def digit_network(
    name: str, paper: str, module: str, random_fp16_tolerance: float = 0.03
) -> Network:
    """A network trained by export/train.py; its input is one grey digit, 32×32."""
    return Network(
        name=name,
        paper=paper,
        architecture=f"{module}:{name}",
        size=DIGIT_SIZE,
        mean=(DIGIT_MEAN,),
        std=(DIGIT_STD,),
        preprocessing=pb.Preprocessing(digit=pb.Digit(size=DIGIT_SIZE, box=DIGIT_BOX)),
        labels=digit_labels,
        weights="digits",
        proof_images=360,
        fp16_tolerance=0.02,  # measured: at most 6e-3, over all 360
        int8_tolerance=0.1,  # measured: at most 0.061
        random_fp16_tolerance=random_fp16_tolerance,
        golden_tolerance=0.02,  # the build uses the gateway's own preprocessing
    )


NETWORKS = (
    digit_network("lenet5", LECUN_1998, "lenet"),
    imagenet_network("alexnet", KRIZHEVSKY_2014, "alexnet", "alexnet-owt-7be5be79.pth"),
    imagenet_network("alexnet_2012", KRIZHEVSKY_2012, "alexnet", size=227),
    imagenet_network("vgg11", SIMONYAN_2014, "vgg", "vgg11-8a719046.pth"),
    imagenet_network("vgg13", SIMONYAN_2014, "vgg", "vgg13-19584684.pth"),
    imagenet_network("vgg16", SIMONYAN_2014, "vgg", "vgg16-397923af.pth"),
    imagenet_network("vgg19", SIMONYAN_2014, "vgg", "vgg19-dcbb9e9d.pth"),
    imagenet_network("vgg11_bn", SIMONYAN_2014, "vgg", "vgg11_bn-6002323d.pth"),
    imagenet_network("vgg13_bn", SIMONYAN_2014, "vgg", "vgg13_bn-abd245e5.pth"),
    imagenet_network("vgg16_bn", SIMONYAN_2014, "vgg", "vgg16_bn-6c64b313.pth"),
    imagenet_network("vgg19_bn", SIMONYAN_2014, "vgg", "vgg19_bn-c79401a0.pth"),
    digit_network("vgg_digits", SIMONYAN_2014, "vgg"),
    imagenet_network("nin", LIN_2013, "nin"),
    Network(
        name="nin_cifar10",
        paper=LIN_2013,
        architecture="nin:nin_cifar10",
        size=32,
        # The author normalises contrast and whitens with matrices that were not published; these
        # are the training set's mean and standard deviation per channel.
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        preprocessing=photo(resize=32, crop=32),
        labels=cifar10_labels,
        weights="imagenet",
    ),
    digit_network("nin_digits", LIN_2013, "nin", random_fp16_tolerance=0.15),
    imagenet_network("googlenet", SZEGEDY_2014, "googlenet", "googlenet-1378be20.pth"),
    imagenet_network("googlenet_2014", SZEGEDY_2014, "googlenet"),
    digit_network("inception_digits", SZEGEDY_2014, "googlenet"),
    imagenet_network(
        "inception_v3",
        SZEGEDY_2015,
        "inception_v3",
        "inception_v3_google-0cc3c7bd.pth",
        size=299,
        resize=342,
        random_fp16_tolerance=0.1,
    ),
    # Without shortcuts, rounding errors grow from layer to layer.
    imagenet_network("plain18", HE_2015, "resnet"),
    imagenet_network("plain34", HE_2015, "resnet", random_fp16_tolerance=0.1),
    imagenet_network("resnet18", HE_2015, "resnet", "resnet18-f37072fd.pth"),
    imagenet_network("resnet34", HE_2015, "resnet", "resnet34-b627a593.pth"),
    deep_resnet("resnet50", "resnet50-11ad3fa6.pth", "resnet50-0676ba61.pth"),
    deep_resnet("resnet101", "resnet101-cd907fc2.pth", "resnet101-63fe2227.pth"),
    deep_resnet("resnet152", "resnet152-f82ba261.pth", "resnet152-394f9c45.pth"),
    # Random weights are unsure of some of the 360 digits; those move most in fp16.
    digit_network("plain20_digits", HE_2015, "resnet", random_fp16_tolerance=0.15),
    digit_network("resnet20_digits", HE_2015, "resnet", random_fp16_tolerance=0.15),
)


def by_name(networks: Iterable[Network]) -> dict[str, Network]:
    """Returns the rows by name.

    Raises:
        ValueError: two rows have the same name.
    """
    table: dict[str, Network] = {}
    for network in networks:
        if network.name in table:
            raise ValueError(f"two networks in the catalog are called {network.name!r}: rename one")
        table[network.name] = network
    return table


CATALOG = by_name(NETWORKS)


def find(name: str) -> Network:
    """Returns the row of that name.

    Raises:
        UnknownNetwork: there is none; the message suggests the nearest names, or lists all.
    """
    if name in CATALOG:
        return CATALOG[name]
    near = difflib.get_close_matches(name.lower(), CATALOG, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(CATALOG)}."
    raise UnknownNetwork(f"No network is called {name!r}: {hint}")
