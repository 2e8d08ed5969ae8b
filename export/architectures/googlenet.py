"""GoogLeNet: C. Szegedy, W. Liu, Y. Jia, P. Sermanet, S. Reed, D. Anguelov, D. Erhan, V. Vanhoucke,
A. Rabinovich, "Going Deeper with Convolutions", 2014, arXiv 1409.4842, sections 4 and 5, table 1.

An inception module applies four operations to its input in parallel and concatenates the results.
The 1x1 convolution before each wide one makes that affordable: the 5x5 branch of module 3a costs
12.4 million multiplications with it and 120 million without.

googlenet_2014 is the network of the paper, googlenet that of the published weights, and
inception_digits the idea at the size of a digit. Input N×3×224×224, normalised, to N×1000; digits
N×1×32×32 to N×10. Outputs are logits. With `aux_heads`, in training mode only, the output is
(logits, aux2, aux1), where each head's loss has the weight 0.3; a served network has no heads.

Attribute names are those of torchvision's GoogLeNet, so that its checkpoint loads by its keys:
`conv2` and `conv3` together are the paper's second row, `branch1` to `branch4` are the columns of
table 1 from "#1x1" to "pool proj".

googlenet follows torchvision's models/googlenet.py and differs from the paper in:
- a batch norm after each convolution, instead of biases and response normalisation;
- the "5x5" convolution is 3x3: a mistake in the TensorFlow model from which the weights came, kept
  because the weights depend on it (github.com/pytorch/vision, issue 906);
- the fourth pool is 2x2, dropout is 0.2 where the paper has 0.4, and the heads' pool is adaptive;
- pixels are normalised again, see TransformInput; 15×15 pixels are enough.
googlenet_2014 takes from BVLC's replica (github.com/BVLC/caffe, models/bvlc_googlenet) what the
paper does not print: the constants of response normalisation, and that pools round up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.architectures.initialization import he_normal
from export.architectures.normalization import LocalResponseNorm, TransformInput
from export.architectures.taps import Taps
from export.architectures.unfamiliar import ScoresUnfamiliar

CLASSES = 1000


class ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU: as published. inception_v3 uses it too."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels_out, eps=1e-3)  # TensorFlow's

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class ConvBias(nn.Module):
    """Convolution with biases, ReLU: as in the paper."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.conv(x))


@dataclass(frozen=True)
class Form:
    """The differences between the published network and the paper's."""

    conv: type[ConvNorm] | type[ConvBias]
    fives: int  # the kernel of the "5x5" branch
    norm: Callable[[], nn.Module]  # twice, in the stem
    pool4: int
    dropout: float
    head_pool: Callable[[], nn.Module]  # 14×14 to 4×4


PUBLISHED = Form(
    conv=ConvNorm,
    fives=3,
    norm=nn.Identity,
    pool4=2,
    dropout=0.2,
    head_pool=partial(nn.AdaptiveAvgPool2d, 4),  # windows start at 0, 3, 7, 10: not the paper's
)
PAPER = Form(
    conv=ConvBias,
    fives=5,
    norm=partial(LocalResponseNorm, size=5, alpha=1e-4 / 5, beta=0.75, k=1.0),
    pool4=3,
    dropout=0.4,
    head_pool=partial(nn.AvgPool2d, kernel_size=5, stride=3),
)
DIGITS = Form(
    conv=ConvNorm,
    fives=5,
    norm=nn.Identity,
    pool4=3,
    dropout=0.2,
    head_pool=nn.Identity,
)


@dataclass(frozen=True)
class Widths:
    """Channels after each convolution of a module: a row of table 1."""

    ones: int
    threes: tuple[int, int]  # reduced, then 3x3
    fives: tuple[int, int]  # reduced, then 5x5
    pool: int

    @property
    def out(self) -> int:
        return self.ones + self.threes[1] + self.fives[1] + self.pool


class Inception(nn.Module):
    def __init__(self, form: Form, channels: int, widths: Widths) -> None:
        super().__init__()
        conv = form.conv
        threes, fives = widths.threes, widths.fives
        self.branch1 = conv(channels, widths.ones, 1)
        self.branch2 = nn.Sequential(conv(channels, threes[0], 1), conv(*threes, 3, padding=1))
        self.branch3 = nn.Sequential(
            conv(channels, fives[0], 1), conv(*fives, form.fives, padding=form.fives // 2)
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(kernel_size=3, stride=1, padding=1), conv(channels, widths.pool, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        branches = (self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x))
        return torch.cat(branches, dim=1)


class AuxiliaryHead(nn.Module):
    """A classifier in the middle that brings the gradient to the first half (section 5)."""

    def __init__(self, form: Form, channels: int, classes: int) -> None:
        super().__init__()
        self.pool = form.head_pool()
        self.conv = form.conv(channels, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, classes)

    def forward(self, x: Tensor) -> Tensor:  # N×C×14×14
        x = self.conv(self.pool(x)).flatten(1)  # N×2048, of 128×4×4
        x = self.dropout(self.relu(self.fc1(x)))  # N×1024
        logits: Tensor = self.fc2(x)  # N×1000
        return logits


# Table 1.
INCEPTION_3A = Widths(64, (96, 128), (16, 32), 32)
INCEPTION_3B = Widths(128, (128, 192), (32, 96), 64)
INCEPTION_4A = Widths(192, (96, 208), (16, 48), 64)
INCEPTION_4B = Widths(160, (112, 224), (24, 64), 64)
INCEPTION_4C = Widths(128, (128, 256), (24, 64), 64)
INCEPTION_4D = Widths(112, (144, 288), (32, 64), 64)
INCEPTION_4E = Widths(256, (160, 320), (32, 128), 128)
INCEPTION_5A = Widths(256, (160, 320), (32, 128), 128)
INCEPTION_5B = Widths(384, (192, 384), (48, 128), 128)


class GoogLeNet(nn.Module):
    taps = Taps(last_layer="fc", average="avgpool")

    def __init__(
        self, form: Form, *, aux_heads: bool, transform_input: bool, classes: int = CLASSES
    ) -> None:
        super().__init__()
        conv = form.conv
        self.transform_input = TransformInput() if transform_input else nn.Identity()
        self.conv1 = conv(3, 64, 7, stride=2, padding=3)
        self.maxpool1 = max_pool()
        self.norm1 = form.norm()
        self.conv2 = conv(64, 64, 1)
        self.conv3 = conv(64, 192, 3, padding=1)
        self.norm2 = form.norm()
        self.maxpool2 = max_pool()
        self.inception3a = Inception(form, 192, INCEPTION_3A)
        self.inception3b = Inception(form, 256, INCEPTION_3B)
        self.maxpool3 = max_pool()
        self.inception4a = Inception(form, 480, INCEPTION_4A)
        self.inception4b = Inception(form, 512, INCEPTION_4B)
        self.inception4c = Inception(form, 512, INCEPTION_4C)
        self.inception4d = Inception(form, 512, INCEPTION_4D)
        self.inception4e = Inception(form, 528, INCEPTION_4E)
        self.maxpool4 = max_pool(form.pool4)
        self.inception5a = Inception(form, 832, INCEPTION_5A)
        self.inception5b = Inception(form, 832, INCEPTION_5B)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(form.dropout)
        self.fc = nn.Linear(1024, classes)
        self.aux1 = AuxiliaryHead(form, 512, classes) if aux_heads else None
        self.aux2 = AuxiliaryHead(form, 528, classes) if aux_heads else None

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:  # N×3×224×224
        x = self.conv1(self.transform_input(x))  # N×64×112×112
        x = self.norm1(self.maxpool1(x))  # N×64×56×56
        x = self.conv3(self.conv2(x))  # N×192×56×56
        x = self.maxpool2(self.norm2(x))  # N×192×28×28
        x = self.inception3a(x)  # N×256×28×28
        x = self.inception3b(x)  # N×480×28×28
        x = self.maxpool3(x)  # N×480×14×14
        after_4a = self.inception4a(x)  # N×512×14×14
        x = self.inception4b(after_4a)
        x = self.inception4c(x)
        after_4d = self.inception4d(x)  # N×528×14×14
        x = self.inception4e(after_4d)  # N×832×14×14
        x = self.maxpool4(x)  # N×832×7×7
        x = self.inception5a(x)
        x = self.inception5b(x)  # N×1024×7×7
        x = self.avgpool(x).flatten(1)  # N×1024
        logits: Tensor = self.fc(self.dropout(x))  # N×1000
        if self.training and self.aux1 is not None and self.aux2 is not None:
            return logits, self.aux2(after_4d), self.aux1(after_4a)
        return logits


class DigitInception(ScoresUnfamiliar, nn.Module):
    """The stem, two modules, a pool, a third: the pattern of table 1 for 32×32 pixels."""

    taps = Taps(
        last_layer="fc",
        average="avgpool",
        layers={
            "conv1": "maxpool1",
            "conv3": "maxpool2",
            "inception3a": "inception3b",
            "inception3b": "maxpool3",
            "inception4a": "avgpool",
        },
    )

    def __init__(self, form: Form = DIGITS, classes: int = 10) -> None:
        super().__init__()
        conv = form.conv
        self.conv1 = conv(1, 16, 5, padding=2)
        self.maxpool1 = max_pool()
        self.conv2 = conv(16, 16, 1)
        self.conv3 = conv(16, 32, 3, padding=1)
        self.maxpool2 = max_pool()
        self.inception3a = Inception(form, 32, Widths(16, (16, 32), (4, 8), 8))
        self.inception3b = Inception(form, 64, Widths(32, (24, 48), (8, 16), 16))
        self.maxpool3 = max_pool()
        self.inception4a = Inception(form, 112, Widths(48, (32, 64), (8, 24), 24))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(form.dropout)
        self.fc = nn.Linear(160, classes)
        self.apply(he_normal)

    def forward(self, x: Tensor) -> Tensor:  # N×1×32×32
        x = self.maxpool1(self.conv1(x))  # N×16×16×16
        x = self.maxpool2(self.conv3(self.conv2(x)))  # N×32×8×8
        x = self.inception3a(x)  # N×64×8×8
        x = self.inception3b(x)  # N×112×8×8
        x = self.inception4a(self.maxpool3(x))  # N×160×4×4
        x = self.avgpool(x).flatten(1)  # N×160
        logits: Tensor = self.fc(self.dropout(x))  # N×10
        return logits


def max_pool(kernel: int = 3) -> nn.MaxPool2d:
    return nn.MaxPool2d(kernel, stride=2, ceil_mode=True)


def googlenet(
    *, aux_heads: bool = False, transform_input: bool = True, classes: int = CLASSES
) -> GoogLeNet:
    return GoogLeNet(
        PUBLISHED, aux_heads=aux_heads, transform_input=transform_input, classes=classes
    )


def googlenet_2014(*, aux_heads: bool = False, classes: int = CLASSES) -> GoogLeNet:
    return GoogLeNet(PAPER, aux_heads=aux_heads, transform_input=False, classes=classes)


def inception_digits(classes: int = 10) -> DigitInception:
    return DigitInception(classes=classes)
