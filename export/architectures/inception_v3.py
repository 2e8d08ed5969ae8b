"""Inception v3: C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens, Z. Wojna, "Rethinking the Inception
Architecture for Computer Vision", 2015, arXiv 1512.00567, sections 3 to 6 and table 1.

The convolutions of the inception module are factorised: a 5x5 becomes two 3x3, a 7x7 becomes 1x7
then 7x1. Two parallel branches, a pool and a convolution, halve the picture: a pool alone would
lose information, and a convolution alone would cost more.

Input N×3×299×299, normalised; at least 75×75. Output N×1000, logits; with `aux_heads`, in training
mode only, (logits, aux). A served network has no head.

Attribute names are those of torchvision's Inception3, so that its checkpoint loads by its keys;
they come from TensorFlow, where `dbl` is two convolutions instead of a larger one.

It follows torchvision's models/inception.py, whose weights TensorFlow trained, and differs from the
paper in:
- a dropout of 0.5 where TensorFlow's model has 0.2;
- the head's pool is the mean of 5x5 at stride 3, and its linear layer follows a 5x5 convolution
  (the paper has no table of the head);
- pixels are normalised again, see TransformInput.
Average pools count the zeros around the picture; the published weights depend on that.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.architectures.googlenet import ConvNorm
from export.architectures.normalization import TransformInput
from export.architectures.taps import Taps

CLASSES = 1000


class InceptionA(nn.Module):
    """35×35: two 3x3 instead of a 5x5 (figure 5)."""

    def __init__(self, channels: int, pool: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(channels, 64, 1)
        self.branch5x5_1 = ConvNorm(channels, 48, 1)
        self.branch5x5_2 = ConvNorm(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = ConvNorm(channels, 64, 1)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, padding=1)
        self.pool = average_pool()
        self.branch_pool = ConvNorm(channels, pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        ones = self.branch1x1(x)
        fives = self.branch5x5_2(self.branch5x5_1(x))
        threes = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat((ones, fives, threes, self.branch_pool(self.pool(x))), dim=1)


class InceptionB(nn.Module):
    """35×35 to 17×17 (figure 10)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = ConvNorm(channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = ConvNorm(channels, 64, 1)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, stride=2)
        self.pool = max_pool()

    def forward(self, x: Tensor) -> Tensor:
        threes = self.branch3x3(x)
        doubled = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat((threes, doubled, self.pool(x)), dim=1)


class InceptionC(nn.Module):
    """17×17: 1x7 then 7x1 instead of a 7x7 (figure 6); `width` is the channels between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(768, 192, 1)
        self.branch7x7_1 = ConvNorm(768, width, 1)
        self.branch7x7_2 = flat(width, width)
        self.branch7x7_3 = tall(width, 192)
        self.branch7x7dbl_1 = ConvNorm(768, width, 1)
        self.branch7x7dbl_2 = tall(width, width)
        self.branch7x7dbl_3 = flat(width, width)
        self.branch7x7dbl_4 = tall(width, width)
        self.branch7x7dbl_5 = flat(width, 192)
        self.pool = average_pool()
        self.branch_pool = ConvNorm(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        ones = self.branch1x1(x)
        sevens = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        doubled = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        doubled = self.branch7x7dbl_5(self.branch7x7dbl_4(doubled))
        return torch.cat((ones, sevens, doubled, self.branch_pool(self.pool(x))), dim=1)


class InceptionD(nn.Module):
    """17×17 to 8×8."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = ConvNorm(768, 192, 1)
        self.branch3x3_2 = ConvNorm(192, 320, 3, stride=2)
        self.branch7x7x3_1 = ConvNorm(768, 192, 1)
        self.branch7x7x3_2 = flat(192, 192)
        self.branch7x7x3_3 = tall(192, 192)
        self.branch7x7x3_4 = ConvNorm(192, 192, 3, stride=2)
        self.pool = max_pool()

    def forward(self, x: Tensor) -> Tensor:
        threes = self.branch3x3_2(self.branch3x3_1(x))
        sevens = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat((threes, self.branch7x7x3_4(sevens), self.pool(x)), dim=1)


class InceptionE(nn.Module):
    """8×8: wide rather than deep; 1x3 and 3x1 in parallel (figure 7)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(channels, 320, 1)
        self.branch3x3_1 = ConvNorm(channels, 384, 1)
        self.branch3x3_2a = ConvNorm(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = ConvNorm(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = ConvNorm(channels, 448, 1)
        self.branch3x3dbl_2 = ConvNorm(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = ConvNorm(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = ConvNorm(384, 384, (3, 1), padding=(1, 0))
        self.pool = average_pool()
        self.branch_pool = ConvNorm(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        ones = self.branch1x1(x)
        threes = self.branch3x3_1(x)
        threes = torch.cat((self.branch3x3_2a(threes), self.branch3x3_2b(threes)), dim=1)
        doubled = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        doubled = torch.cat((self.branch3x3dbl_3a(doubled), self.branch3x3dbl_3b(doubled)), dim=1)
        return torch.cat((ones, threes, doubled, self.branch_pool(self.pool(x))), dim=1)


class InceptionV3Head(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(kernel_size=5, stride=3)
        self.conv0 = ConvNorm(768, 128, 1)
        self.conv1 = ConvNorm(128, 768, 5)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:  # N×768×17×17
        x = self.conv0(self.pool(x))  # N×128×5×5
        x = self.average(self.conv1(x)).flatten(1)  # N×768
        logits: Tensor = self.fc(x)  # N×1000
        return logits


class InceptionV3(nn.Module):
    taps = Taps(last_layer="fc", average="avgpool")

    def __init__(self, *, aux_heads: bool, transform_input: bool, classes: int = CLASSES) -> None:
        super().__init__()
        self.transform_input = TransformInput() if transform_input else nn.Identity()
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, 3, padding=1)
        self.maxpool1 = max_pool()
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, 3)
        self.maxpool2 = max_pool()
        self.Mixed_5b = InceptionA(192, pool=32)
        self.Mixed_5c = InceptionA(256, pool=64)
        self.Mixed_5d = InceptionA(288, pool=64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(width=128)
        self.Mixed_6c = InceptionC(width=160)
        self.Mixed_6d = InceptionC(width=160)
        self.Mixed_6e = InceptionC(width=192)
        self.Mixed_7a = InceptionD()
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(2048, classes)
        self.AuxLogits = InceptionV3Head(classes) if aux_heads else None

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:  # N×3×299×299
        x = self.Conv2d_1a_3x3(self.transform_input(x))  # N×32×149×149
        x = self.Conv2d_2a_3x3(x)  # N×32×147×147
        x = self.maxpool1(self.Conv2d_2b_3x3(x))  # N×64×73×73
        x = self.Conv2d_3b_1x1(x)  # N×80×73×73
        x = self.maxpool2(self.Conv2d_4a_3x3(x))  # N×192×35×35
        x = self.Mixed_5b(x)  # N×256×35×35
        x = self.Mixed_5c(x)  # N×288×35×35
        x = self.Mixed_5d(x)
        x = self.Mixed_6a(x)  # N×768×17×17
        x = self.Mixed_6b(x)
        x = self.Mixed_6c(x)
        x = self.Mixed_6d(x)
        after_6e = self.Mixed_6e(x)
        x = self.Mixed_7a(after_6e)  # N×1280×8×8
        x = self.Mixed_7b(x)  # N×2048×8×8
        x = self.Mixed_7c(x)
        x = self.avgpool(x).flatten(1)  # N×2048
        logits: Tensor = self.fc(self.dropout(x))  # N×1000
        if self.training and self.AuxLogits is not None:
            return logits, self.AuxLogits(after_6e)
        return logits


def flat(channels_in: int, channels_out: int) -> ConvNorm:
    """1 high and 7 wide; keeps the size."""
    return ConvNorm(channels_in, channels_out, (1, 7), padding=(0, 3))


def tall(channels_in: int, channels_out: int) -> ConvNorm:
    """7 high and 1 wide; keeps the size."""
    return ConvNorm(channels_in, channels_out, (7, 1), padding=(3, 0))


def average_pool() -> nn.AvgPool2d:
    return nn.AvgPool2d(kernel_size=3, stride=1, padding=1, count_include_pad=True)


def max_pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(kernel_size=3, stride=2)


def inception_v3(
    *, aux_heads: bool = False, transform_input: bool = True, classes: int = CLASSES
) -> InceptionV3:
    return InceptionV3(aux_heads=aux_heads, transform_input=transform_input, classes=classes)
