"""Network in Network: M. Lin, Q. Chen, S. Yan, 2013, arXiv 1312.4400, section 3 and figure 2.

A convolution applies a linear function to each patch; here a small network is applied instead. Its
layers are 1x1 convolutions (the paper's mlpconv). With one map per class at the end, no linear
layers are needed: the score of a class is the mean of its map.

nin: input N×3×224×224 to N×1000. nin_cifar10: N×3×32×32 to N×10. nin_digits: N×1×32×32 to N×10.
All inputs are normalised, all outputs are logits.

It differs from the paper in:
- the numbers of channels, which the paper does not print: they are those of its author's Caffe
  models, nin_imagenet and cifar10_nin (gist.github.com/mavenlin). The ImageNet form is from there
  too; the paper has no result on ImageNet.
- pools round up, as Caffe's do: 54 becomes 27, not 26. The second pool for CIFAR-10 averages.
- a ReLU follows the last convolution too (the same models), so that a score is never negative.
- nin_digits has batch norms instead of dropout, and no ReLU at the end: this form read 358 of 360
  held-out digits; with dropout and without the norms it was 327.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict

from torch import nn

from export.architectures.initialization import he_normal
from export.architectures.taps import Taps
from export.architectures.unfamiliar import ScoresUnfamiliar

LAYERS = ("mlpconv", "scores")  # children that compute, by the beginning of their names
Widths = tuple[int, int, int]  # channels after the spatial convolution and the two 1x1


class NetworkInNetwork(nn.Sequential):
    """A sequence of layers: N×C×H×W to N×K."""

    @property
    def taps(self) -> Taps:
        convolutions = [name for name, part in self.named_modules() if isinstance(part, nn.Conv2d)]
        names = [name for name, _ in self.named_children()]
        followers = itertools.pairwise(names)
        return Taps(
            last_layer=convolutions[-1],
            average="average",
            layers={name: follower for name, follower in followers if name.startswith(LAYERS)},
        )


def nin(classes: int = 1000) -> NetworkInNetwork:
    layers = OrderedDict[str, nn.Module](
        mlpconv1=mlpconv(3, (96, 96, 96), kernel=11, stride=4),  # N×96×54×54
        pool1=max_pool(),  # N×96×27×27
        mlpconv2=mlpconv(96, (256, 256, 256), kernel=5, padding=2),  # N×256×27×27
        pool2=max_pool(),  # N×256×13×13
        mlpconv3=mlpconv(256, (384, 384, 384), kernel=3, padding=1),  # N×384×13×13
        pool3=max_pool(),  # N×384×6×6
        dropout=nn.Dropout(0.5),
        mlpconv4=mlpconv(384, (1024, 1024, classes), kernel=3, padding=1),  # N×1000×6×6
        average=nn.AdaptiveAvgPool2d(1),  # N×1000×1×1
        flatten=nn.Flatten(),  # N×1000
    )
    return NetworkInNetwork(layers)


def nin_cifar10(classes: int = 10) -> NetworkInNetwork:
    layers = OrderedDict[str, nn.Module](
        mlpconv1=mlpconv(3, (192, 160, 96), kernel=5, padding=2),  # N×96×32×32
        pool1=max_pool(),  # N×96×16×16
        dropout1=nn.Dropout(0.5),
        mlpconv2=mlpconv(96, (192, 192, 192), kernel=5, padding=2),  # N×192×16×16
        pool2=nn.AvgPool2d(kernel_size=3, stride=2, ceil_mode=True),  # N×192×8×8
        dropout2=nn.Dropout(0.5),
        mlpconv3=mlpconv(192, (192, 192, classes), kernel=3, padding=1),  # N×10×8×8
        average=nn.AdaptiveAvgPool2d(1),  # N×10×1×1
        flatten=nn.Flatten(),  # N×10
    )
    return NetworkInNetwork(layers)


class DigitNetworkInNetwork(ScoresUnfamiliar, NetworkInNetwork):
    """N×1×32×32 to N×10."""


def nin_digits(classes: int = 10) -> DigitNetworkInNetwork:
    layers = OrderedDict[str, nn.Module](
        mlpconv1=normed_mlpconv(1, (24, 24, 16), kernel=5, padding=2),  # N×16×32×32
        pool1=max_pool(),  # N×16×16×16
        mlpconv2=normed_mlpconv(16, (48, 48, 32), kernel=5, padding=2),  # N×32×16×16
        pool2=max_pool(),  # N×32×8×8
        mlpconv3=normed_mlpconv(32, (64, 64), kernel=3, padding=1),  # N×64×8×8
        scores=nn.Conv2d(64, classes, kernel_size=1),  # N×10×8×8
        average=nn.AdaptiveAvgPool2d(1),  # N×10×1×1
        flatten=nn.Flatten(),  # N×10
    )
    network = DigitNetworkInNetwork(layers)
    network.apply(he_normal)
    return network


def mlpconv(
    channels: int, widths: Widths, kernel: int, stride: int = 1, padding: int = 0
) -> nn.Sequential:
    """A spatial convolution, then a network of two layers at each pixel."""
    first, second, third = widths
    return nn.Sequential(
        nn.Conv2d(channels, first, kernel, stride, padding),
        nn.ReLU(),
        nn.Conv2d(first, second, kernel_size=1),
        nn.ReLU(),
        nn.Conv2d(second, third, kernel_size=1),
        nn.ReLU(),
    )


def normed_mlpconv(
    channels: int, widths: tuple[int, ...], kernel: int, padding: int
) -> nn.Sequential:
    """The same with batch norms, which make the biases redundant."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [
            nn.Conv2d(channels, width, kernel, padding=padding, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        channels, kernel, padding = width, 1, 0
    return nn.Sequential(*layers)


def max_pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True)
