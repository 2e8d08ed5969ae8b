"""Published figures of the networks: years, accuracies, sizes. Nothing here is computed.

The sources are the papers, torchvision's metadata of the published files, and the notes on the
authors' Caffe models. Where a printed size is wrong, `Printed.why` explains it; export/layers.py
counts the true size, and docs/models.md shows both.
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
class ReportedAccuracy:
    """Correct answers in per cent."""

    source: str  # of the weights: a checkpoint's source in the catalog, "digits", or their author
    measured: str  # on what, and how
    top1: float | None = None
    top5: float | None = None


@dataclass(frozen=True)
class Printed:
    """A size as printed, to be compared with the true one."""

    figure: str  # "parameters", "macs", "neurons", "connections", "depth", or "input"
    printed: str
    why: str
    layer: str = ""  # empty: of the whole network


@dataclass(frozen=True)
class ReportedFigures:
    summary: str  # of the network, in a sentence
    accuracy: tuple[ReportedAccuracy, ...] = ()  # the default checkpoint's first
    printed: tuple[Printed, ...] = ()


def checkpoint(top1: float, top5: float, version: int = 1) -> ReportedAccuracy:
    """The accuracy of a file that torchvision publishes, from its metadata."""
    measured = "ImageNet-1k validation, one centre crop"
    return ReportedAccuracy(f"imagenet1k_v{version}", measured, top1, top5)


def from_error(
    measured: str, top1: float | None = None, top5: float | None = None, source: str = "paper"
) -> ReportedAccuracy:
    """Converts an error in per cent, as the papers print it, with at most two decimals."""
    correct = [None if error is None else round(100 - error, 2) for error in (top1, top5)]
    return ReportedAccuracy(source, measured, *correct)


TEN_CROPS = "ImageNet-1k validation, ten crops"
ROUNDED = "rounded"
GPU_TOWERS = "Without the two groups it would be 62,378,344"
V1_STRIDE = "the paper halves in the first 1×1 of a block, the published weights in the 3×3"

REPORTED = {
    "lenet5": ReportedFigures(
        "Two convolutions, each with a trained sub-sampling, and three fully connected layers; "
        "the last one measures distances to ten pictures of digits.",
        (
            from_error("MNIST", top1=0.95),
            from_error("MNIST, trained with distorted digits too", top1=0.8),
        ),
        (
            Printed("parameters", "60,000", "exact"),
            Printed("connections", "340,908", "exact; 840 of them are the fixed distances"),
            Printed("depth", "7", "the paper counts the two sub-samplings, which have weights too"),
        ),
    ),
    "alexnet": ReportedFigures(
        "AlexNet as one tower, with fewer channels and without response normalisation.",
        (checkpoint(56.522, 79.066),),
    ),
    "alexnet_2012": ReportedFigures(
        "As in the paper: two groups for two GPUs, response normalisation, overlapping pools.",
        (
            from_error("ImageNet-1k validation, one network", 40.7, 18.2),
            ReportedAccuracy(
                "BVLC's replica in Caffe, with other constants of response normalisation",
                "ImageNet-1k validation, one centre crop",
                57.1,
                80.2,
            ),
        ),
        (
            Printed("parameters", "60 million", f"{ROUNDED}. {GPU_TOWERS}"),
            Printed(
                "input", "150,528", "224×224×3, but (224 - 11) / 4 is not an integer: it is 227"
            ),
            Printed("neurons", "253,440", "55×48×96, a misprint for 55×55×96", layer="conv1"),
            Printed("neurons", "650,000", "the paper's own list of layers sums to 622,312"),
        ),
    ),
    "vgg11": ReportedFigures(
        "Configuration A: 8 convolutions and 3 linear layers.",
        (checkpoint(69.020, 88.628),),
        (Printed("parameters", "133 million", ROUNDED),),
    ),
    "vgg13": ReportedFigures(
        "Configuration B: 10 convolutions and 3 linear layers.",
        (checkpoint(69.928, 89.246),),
        (Printed("parameters", "133 million", ROUNDED),),
    ),
    "vgg16": ReportedFigures(
        "Configuration D: 13 convolutions and 3 linear layers.",
        (checkpoint(71.592, 90.382),),
        (
            Printed("parameters", "138 million", ROUNDED),
            Printed("macs", "15.3 billion", "He et al. count the convolutions alone: 15.347"),
        ),
    ),
    "vgg19": ReportedFigures(
        "Configuration E: 16 convolutions and 3 linear layers.",
        (checkpoint(72.376, 90.876),),
        (
            Printed("parameters", "144 million", ROUNDED),
            Printed("macs", "19.6 billion", "He et al. count all layers here: convolutions 19.508"),
        ),
    ),
    "vgg11_bn": ReportedFigures(
        "Configuration A with a batch norm after each convolution.", (checkpoint(70.370, 89.810),)
    ),
    "vgg13_bn": ReportedFigures(
        "Configuration B with a batch norm after each convolution.", (checkpoint(71.586, 90.374),)
    ),
    "vgg16_bn": ReportedFigures(
        "Configuration D with a batch norm after each convolution.", (checkpoint(73.360, 91.516),)
    ),
    "vgg19_bn": ReportedFigures(
        "Configuration E with a batch norm after each convolution.", (checkpoint(74.218, 91.842),)
    ),
    "vgg_digits": ReportedFigures(
        "VGG's idea at the size of a digit: 6 convolutions, 3 linear layers."
    ),
    "nin": ReportedFigures(
        "Four convolutions, each followed by two 1×1, and the mean of each of 1,000 maps: no "
        "linear layer. The author's ImageNet form.",
        (ReportedAccuracy("the author's Caffe model", "ImageNet-1k validation", 59.36),),
        (Printed("parameters", "29 MB", "the author's snapshot: 4 bytes each, MB of 2^20 bytes"),),
    ),
    "nin_cifar10": ReportedFigures(
        "Three convolutions, each followed by two 1×1, for CIFAR-10.",
        (
            from_error("CIFAR-10, with augmentation", top1=8.81),
            from_error("CIFAR-10", top1=10.41),
        ),
    ),
    "nin_digits": ReportedFigures("Network in Network at the size of a digit, with batch norms."),
    "googlenet": ReportedFigures(
        "Nine inception modules, as TensorFlow trained them: batch norms, and a 3×3 where the "
        "paper has a 5×5.",
        (checkpoint(69.778, 89.530),),
        (
            Printed(
                "macs", "1.5 billion", "agrees by chance: the 3×3 costs less than the paper's 5×5"
            ),
        ),
    ),
    "googlenet_2014": ReportedFigures(
        "Nine inception modules, as in the paper: true 5×5, response normalisation, no batch norm.",
        (
            from_error("ImageNet-1k validation, one network, one crop", top5=10.07),
            from_error("ImageNet-1k validation, seven networks, 144 crops", top5=6.67),
            ReportedAccuracy(
                "BVLC's replica in Caffe", "ImageNet-1k validation, one centre crop", 68.7, 88.9
            ),
        ),
        (
            Printed(
                "parameters",
                "5 million",
                "Szegedy et al. 2015; the paper says 12 times fewer than AlexNet; it is 8.7 times",
            ),
            Printed("macs", "1.5 billion", f"{ROUNDED} down; the rows of table 1 sum to 1,502 M"),
        ),
    ),
    "inception_digits": ReportedFigures("Three inception modules at the size of a digit."),
    "inception_v3": ReportedFigures(
        "Eleven inception modules of five kinds, with factorised wide kernels.",
        (
            checkpoint(77.294, 93.450),
            from_error("ImageNet-1k validation, one crop", 21.2, 5.6),
        ),
        (
            Printed(
                "parameters",
                "less than 25 million",
                "agrees; 27,161,264, as some count, includes the head that helps training",
            ),
            Printed("macs", "5 billion", "an estimate"),
            Printed("depth", "42", "the paper does not say what it counts"),
        ),
    ),
    "plain18": ReportedFigures(
        "ResNet-18 without its shortcuts.",
        (from_error(TEN_CROPS, top1=27.94),),
        (Printed("macs", "1.8 billion", ROUNDED),),
    ),
    "plain34": ReportedFigures(
        "ResNet-34 without its shortcuts: more layers than plain18, and more errors.",
        (from_error(TEN_CROPS, top1=28.54),),
        (Printed("macs", "3.6 billion", ROUNDED),),
    ),
    "resnet18": ReportedFigures(
        "Eight blocks of two 3×3, shortcuts with projections where the shape changes (option B).",
        (checkpoint(69.758, 89.078), from_error(f"{TEN_CROPS}, shortcuts of option A", top1=27.88)),
        (Printed("macs", "1.8 billion", ROUNDED),),
    ),
    "resnet34": ReportedFigures(
        "Sixteen blocks of two 3×3, shortcuts of option B.",
        (checkpoint(73.314, 91.420), from_error(f"{TEN_CROPS}, shortcuts of option A", top1=25.03)),
        (Printed("macs", "3.6 billion", "without projections (option A), as plain34: 3.644"),),
    ),
    "resnet50": ReportedFigures(
        "Sixteen bottlenecks of 1×1, 3×3, 1×1.",
        (
            checkpoint(80.858, 95.434, 2),
            checkpoint(76.130, 92.862),
            from_error(TEN_CROPS, 22.9, 6.7),
        ),
        (Printed("macs", "3.8 billion", f"{V1_STRIDE}: 3.858, truncated, not rounded"),),
    ),
    "resnet101": ReportedFigures(
        "Thirty-three bottlenecks.",
        (
            checkpoint(81.886, 95.780, 2),
            checkpoint(77.374, 93.546),
            from_error(TEN_CROPS, 21.8, 6.1),
        ),
        (Printed("macs", "7.6 billion", f"{V1_STRIDE}: 7.570"),),
    ),
    "resnet152": ReportedFigures(
        "Fifty bottlenecks.",
        (
            checkpoint(82.284, 96.002, 2),
            checkpoint(78.312, 94.046),
            from_error(TEN_CROPS, 21.4, 5.7),
        ),
        (Printed("macs", "11.3 billion", f"{V1_STRIDE}: 11.282"),),
    ),
    "plain20_digits": ReportedFigures(
        "resnet20_digits without its shortcuts: as many parameters and multiplications."
    ),
    "resnet20_digits": ReportedFigures(
        "The paper's network for CIFAR-10, n = 3, for one grey channel; shortcuts of option A.",
        printed=(
            Printed("parameters", "0.27 million", "269,722 with the three channels of the paper"),
        ),
    ),
}

# Table 1 of the GoogLeNet paper, as printed: the blocks of googlenet_2014 in each row, their
# parameters in thousands and operations in millions.
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


def accuracy(network: Network) -> tuple[ReportedAccuracy, ...]:
    """Returns the published accuracies, then those measured by export/train.py, worst first."""
    facts_path = TRAINED_WEIGHTS / f"{network.name}.json"
    entries = json.loads(facts_path.read_bytes())["accuracy"] if facts_path.exists() else []
    trained = [
        ReportedAccuracy(
            source="digits",
            measured=entry["measured"],
            top1=round(100 * entry["correct"] / entry["total"], 1),
        )
        for entry in entries
    ]
    return (
        *REPORTED[network.name].accuracy,
        *sorted(trained, key=lambda accuracy: accuracy.top1 or 0),
    )
