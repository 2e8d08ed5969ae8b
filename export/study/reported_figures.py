"""What others have printed about the networks: years, accuracies, sizes. Nothing here is computed.

The papers, torchvision's metadata of the published files, and the notes beside the authors' Caffe
models are the sources. Where a printed size is not the true one, `Printed.why` says why; the true
one comes from export/describe.py, so that the two can be laid side by side (docs/models.md).
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from export import catalog
from export.catalog import Network
from export.files import TRAINED_WEIGHTS


@dataclass(frozen=True)
class Paper:
    short: str
    year: int


# By the catalog's full reference.
PAPERS = {
    catalog.LECUN_1998: Paper("LeCun et al.", 1998),
    catalog.KRIZHEVSKY_2012: Paper("Krizhevsky et al.", 2012),
    catalog.LIN_2013: Paper("Lin et al.", 2013),
    catalog.KRIZHEVSKY_2014: Paper("Krizhevsky", 2014),
    catalog.SIMONYAN_2014: Paper("Simonyan, Zisserman", 2014),
    catalog.SZEGEDY_2014: Paper("Szegedy et al.", 2014),
    catalog.SZEGEDY_2015: Paper("Szegedy et al.", 2015),
    catalog.HE_2015: Paper("He et al.", 2015),
}


@dataclass(frozen=True)
class Accuracy:
    """Right answers in per cent."""

    source: str  # of the weights: a checkpoint's source in the catalog, "digits", or who had them
    measured: str  # on what, and how
    top1: float | None = None
    top5: float | None = None


@dataclass(frozen=True)
class Printed:
    """A size as it is printed, to lay beside the true one."""

    figure: str  # "parameters", "macs", "neurons", "connections", "depth", or "input"
    printed: str
    why: str
    layer: str = ""  # of one layer alone, by its name


@dataclass(frozen=True)
class Published:
    what: str  # the network in a sentence
    accuracy: tuple[Accuracy, ...] = ()  # that of the default checkpoint first
    printed: tuple[Printed, ...] = ()


def file(top1: float, top5: float, version: int = 1) -> Accuracy:
    """Of a file that torchvision publishes, from the metadata beside it."""
    measured = "ImageNet-1k validation, one centre crop"
    return Accuracy(f"imagenet1k_v{version}", measured, top1, top5)


def error(
    measured: str, top1: float | None = None, top5: float | None = None, source: str = "paper"
) -> Accuracy:
    """Papers print what goes wrong; two decimals at most."""
    right = [None if each is None else round(100 - each, 2) for each in (top1, top5)]
    return Accuracy(source, measured, *right)


TEN_CROPS = "ImageNet-1k validation, ten crops"
ROUNDED = "rounded"
GPU_TOWERS = "Without the two groups it would be 62,378,344"
V1_STRIDE = "the paper halves in the first 1×1 of a block, the published weights in the 3×3"

PUBLISHED = {
    "lenet5": Published(
        "Two convolutions, each with a trained sub-sampling, and three layers that see everything; "
        "the last one measures distances to ten pictures of digits.",
        (
            error("MNIST", top1=0.95),
            error("MNIST, trained with distorted digits too", top1=0.8),
        ),
        (
            Printed("parameters", "60,000", "exact"),
            Printed("connections", "340,908", "exact; 840 of them are the fixed distances"),
            Printed("depth", "7", "the paper counts the two sub-samplings, which have weights too"),
        ),
    ),
    "alexnet": Published(
        "AlexNet as one tower, with fewer channels and without response normalisation.",
        (file(56.522, 79.066),),
    ),
    "alexnet_2012": Published(
        "The paper to the letter: two groups for two GPUs, response normalisation, pools that "
        "overlap.",
        (
            error("ImageNet-1k validation, one network", 40.7, 18.2),
            Accuracy(
                "BVLC's replica in Caffe, with other constants of response normalisation",
                "ImageNet-1k validation, one centre crop",
                57.1,
                80.2,
            ),
        ),
        (
            Printed("parameters", "60 million", f"{ROUNDED}. {GPU_TOWERS}"),
            Printed("input", "150,528", "224×224×3, but (224 - 11) / 4 is no integer: it is 227"),
            Printed("neurons", "253,440", "55×48×96, a slip for 55×55×96", layer="conv1"),
            Printed("neurons", "650,000", "the paper's own list of layers sums to 622,312"),
        ),
    ),
    "vgg11": Published(
        "Configuration A: 8 convolutions and 3 linear layers.",
        (file(69.020, 88.628),),
        (Printed("parameters", "133 million", ROUNDED),),
    ),
    "vgg13": Published(
        "Configuration B: 10 convolutions and 3 linear layers.",
        (file(69.928, 89.246),),
        (Printed("parameters", "133 million", ROUNDED),),
    ),
    "vgg16": Published(
        "Configuration D: 13 convolutions and 3 linear layers.",
        (file(71.592, 90.382),),
        (
            Printed("parameters", "138 million", ROUNDED),
            Printed("macs", "15.3 billion", "He et al. count the convolutions alone: 15.347"),
        ),
    ),
    "vgg19": Published(
        "Configuration E: 16 convolutions and 3 linear layers.",
        (file(72.376, 90.876),),
        (
            Printed("parameters", "144 million", ROUNDED),
            Printed("macs", "19.6 billion", "He et al. count all of it here: convolutions 19.508"),
        ),
    ),
    "vgg11_bn": Published(
        "Configuration A with a batch norm after each convolution.", (file(70.370, 89.810),)
    ),
    "vgg13_bn": Published(
        "Configuration B with a batch norm after each convolution.", (file(71.586, 90.374),)
    ),
    "vgg16_bn": Published(
        "Configuration D with a batch norm after each convolution.", (file(73.360, 91.516),)
    ),
    "vgg19_bn": Published(
        "Configuration E with a batch norm after each convolution.", (file(74.218, 91.842),)
    ),
    "vgg_digits": Published("VGG's idea at the size of a digit: 6 convolutions, 3 linear layers."),
    "nin": Published(
        "Four convolutions, each followed by two 1×1, and the mean of each of 1,000 maps: no "
        "linear layer. The author's ImageNet form.",
        (Accuracy("the author's Caffe model", "ImageNet-1k validation", 59.36),),
        (Printed("parameters", "29 MB", "the author's snapshot: 4 bytes each, MB of 2^20 bytes"),),
    ),
    "nin_cifar10": Published(
        "Three convolutions, each followed by two 1×1, for CIFAR-10.",
        (
            error("CIFAR-10, with augmentation", top1=8.81),
            error("CIFAR-10", top1=10.41),
        ),
    ),
    "nin_digits": Published("Network in Network at the size of a digit, with batch norms."),
    "googlenet": Published(
        "Nine inception modules, as TensorFlow trained them: batch norms, and a 3×3 where the "
        "paper has a 5×5.",
        (file(69.778, 89.530),),
        (
            Printed(
                "macs", "1.5 billion", "agrees by accident: the 3×3 costs less than the paper's 5×5"
            ),
        ),
    ),
    "googlenet_2014": Published(
        "Nine inception modules, as in the paper: true 5×5, response normalisation, no batch norm.",
        (
            error("ImageNet-1k validation, one network, one crop", top5=10.07),
            error("ImageNet-1k validation, seven networks, 144 crops", top5=6.67),
            Accuracy(
                "BVLC's replica in Caffe", "ImageNet-1k validation, one centre crop", 68.7, 88.9
            ),
        ),
        (
            Printed(
                "parameters",
                "5 million",
                "Szegedy et al. 2015; the paper has 12 times fewer than AlexNet, true is 8.7 times",
            ),
            Printed("macs", "1.5 billion", f"{ROUNDED} down; the rows of table 1 sum to 1,502 M"),
        ),
    ),
    "inception_digits": Published("Three inception modules at the size of a digit."),
    "inception_v3": Published(
        "Eleven inception modules of five kinds, with wide kernels taken apart.",
        (
            file(77.294, 93.450),
            error("ImageNet-1k validation, one crop", 21.2, 5.6),
        ),
        (
            Printed(
                "parameters",
                "less than 25 million",
                "agrees; 27,161,264, as some count, has the head that helps training",
            ),
            Printed("macs", "5 billion", "said roughly"),
            Printed("depth", "42", "the paper does not say what it counts"),
        ),
    ),
    "plain18": Published(
        "ResNet-18 without its shortcuts.",
        (error(TEN_CROPS, top1=27.94),),
        (Printed("macs", "1.8 billion", ROUNDED),),
    ),
    "plain34": Published(
        "ResNet-34 without its shortcuts: more layers than plain18, and more errors.",
        (error(TEN_CROPS, top1=28.54),),
        (Printed("macs", "3.6 billion", ROUNDED),),
    ),
    "resnet18": Published(
        "Eight blocks of two 3×3, shortcuts with projections where the shape changes (option B).",
        (file(69.758, 89.078), error(f"{TEN_CROPS}, shortcuts of option A", top1=27.88)),
        (Printed("macs", "1.8 billion", ROUNDED),),
    ),
    "resnet34": Published(
        "Sixteen blocks of two 3×3, shortcuts of option B.",
        (file(73.314, 91.420), error(f"{TEN_CROPS}, shortcuts of option A", top1=25.03)),
        (Printed("macs", "3.6 billion", "without projections (option A), as plain34: 3.644"),),
    ),
    "resnet50": Published(
        "Sixteen bottlenecks of 1×1, 3×3, 1×1.",
        (file(80.858, 95.434, 2), file(76.130, 92.862), error(TEN_CROPS, 22.9, 6.7)),
        (Printed("macs", "3.8 billion", f"{V1_STRIDE}: 3.858, printed cut and not rounded"),),
    ),
    "resnet101": Published(
        "Thirty-three bottlenecks.",
        (file(81.886, 95.780, 2), file(77.374, 93.546), error(TEN_CROPS, 21.8, 6.1)),
        (Printed("macs", "7.6 billion", f"{V1_STRIDE}: 7.570"),),
    ),
    "resnet152": Published(
        "Fifty bottlenecks.",
        (file(82.284, 96.002, 2), file(78.312, 94.046), error(TEN_CROPS, 21.4, 5.7)),
        (Printed("macs", "11.3 billion", f"{V1_STRIDE}: 11.282"),),
    ),
    "plain20_digits": Published(
        "resnet20_digits without its shortcuts: as many parameters, as many multiplications."
    ),
    "resnet20_digits": Published(
        "The paper's network for CIFAR-10, n = 3, for one grey channel; shortcuts of option A.",
        printed=(
            Printed("parameters", "0.27 million", "269,722 with the three channels of the paper"),
        ),
    ),
}

# Table 1 of the GoogLeNet paper: the blocks of googlenet_2014 that are a row, its parameters in
# thousands and its operations in millions, as printed.
TABLE_1 = {
    ("conv1",): (2.7, 34),
    ("conv2", "conv3"): (112, 360),
    ("inception3a",): (159, 128),
    ("inception3b",): (380, 304),
    ("inception4a",): (364, 73),
    ("inception4b",): (437, 88),
    ("inception4c",): (463, 100),
    ("inception4d",): (580, 119),
    ("inception4e",): (840, 170),
    ("inception5a",): (1072, 54),
    ("inception5b",): (1388, 71),
    ("fc",): (1000, 1),
}


def accuracy(network: Network) -> tuple[Accuracy, ...]:
    """What is published of the network, then what export/train.py measured, the worst first."""
    facts_path = TRAINED_WEIGHTS / f"{network.name}.json"
    entries = json.loads(facts_path.read_bytes())["accuracy"] if facts_path.exists() else []
    trained = [
        Accuracy("digits", each["measured"], round(100 * each["correct"] / each["total"], 1))
        for each in entries
    ]
    return (*PUBLISHED[network.name].accuracy, *sorted(trained, key=lambda each: each.top1 or 0))
