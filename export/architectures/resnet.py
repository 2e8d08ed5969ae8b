"""ResNet: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", 2015,
arXiv 1512.03385, section 3.3 and table 1, section 4.2 and table 6.

A block learns what to add to its input: y = relu(F(x) + shortcut(x)). The shortcut is the identity;
where the shape changes it is a 1x1 convolution (the paper's option B) or fills the new channels
with zeros (option A). The plain networks are the same without shortcuts, y = relu(F(x)): they have
as many parameters and multiplications as with option A, and beyond some depth they learn worse.

The ImageNet form: input N×3×H×W, normalised; 224×224 in the paper. Output N×classes, logits.
The CIFAR form, here for digits: N×1×32×32 to N×10; the paper has 3 channels.

Attribute names are those of torchvision's ResNet, so that the published checkpoints load by their
keys: `downsample` is the paper's projection shortcut, `fc` its last layer.

It differs from the paper in:
- a bottleneck halves the picture in its 3x3 convolution, not in its first 1x1 ("ResNet v1.5"), as
  for the published weights; shapes and keys are the same, results are not. Source: the note
  at `class Bottleneck` in torchvision's models/resnet.py, which names
  https://ngc.nvidia.com/catalog/model-scripts/nvidia:resnet_50_v1_5_for_pytorch.
- the stem's max pooling has a padding of 1 (torchvision) where the authors' Caffe files round up
  without padding (github.com/KaimingHe/deep-residual-networks): both give 56×56, windows one pixel
  apart.
- the last batch norm of a block starts small in the ImageNet form (RESIDUAL_START); a checkpoint
  overwrites it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from export.architectures.initialization import he_normal
from export.architectures.taps import Taps
from export.architectures.unfamiliar import ScoresUnfamiliar

CLASSES = 1000
# The initial scale of a block's last batch norm: small, so that a deep network starts near the
# identity. Goyal et al. 2017 (arXiv 1706.02677, section 5.1) start at 0; with 0.1 each block still
# contributes before any training, and 152 layers of random weights do not magnify fp16's rounding
# (measured: 0.014 of a probability; 0.1 for a scale of 0.25, 0.7 for 1).
RESIDUAL_START = 0.1


def convolution(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Keeps the size at stride 1; no bias, because a batch norm follows everywhere."""
    return nn.Conv2d(
        channels_in, channels_out, kernel, stride, padding=(kernel - 1) // 2, bias=False
    )


# Maps a block's input channels, output channels and stride to its shortcut; None is no shortcut.
Shortcut = Callable[[int, int, int], nn.Module | None]


def projection(channels_in: int, channels_out: int, stride: int) -> nn.Module:
    """Option B: the identity where the shape does not change, else a 1x1 convolution."""
    if stride == 1 and channels_in == channels_out:
        return nn.Identity()  # no parameters, so no keys: as published
    return nn.Sequential(
        convolution(channels_in, channels_out, 1, stride), nn.BatchNorm2d(channels_out)
    )


def padding(channels_in: int, channels_out: int, stride: int) -> nn.Module:
    """Option A: no parameters anywhere."""
    if stride == 1 and channels_in == channels_out:
        return nn.Identity()
    return PaddedShortcut(channels_out - channels_in, stride)


class PaddedShortcut(nn.Module):
    """Every `stride`-th pixel of each row and column, and zeros for the new channels."""

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, 0, self.new_channels))


def plain(channels_in: int, channels_out: int, stride: int) -> None:
    """The plain networks have no shortcut."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (figure 5, left)."""

    expansion = 1  # channels out, in units of `width`

    def __init__(self, channels: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = convolution(channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.downsample = shortcut(channels, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return add_and_rectify(residual, x, self.downsample)


class Bottleneck(nn.Module):
    """1x1 to fewer channels, 3x3, 1x1 back to four times as many (figure 5, right)."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = convolution(channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3, stride)  # v1.5: the stride is here
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = convolution(width, width * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU()
        self.downsample = shortcut(channels, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        return add_and_rectify(residual, x, self.downsample)


def add_and_rectify(residual: Tensor, x: Tensor, shortcut: nn.Module | None) -> Tensor:
    return functional.relu(residual if shortcut is None else residual + shortcut(x))


class ResNet(nn.Module):
    taps = Taps(last_layer="fc", average="avgpool")

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: tuple[int, int, int, int],  # in each of the four stages
        shortcut: Shortcut = projection,
        classes: int = CLASSES,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        wider = block.expansion
        self.layer1 = stage(block, 64, 64, blocks[0], 1, shortcut)
        self.layer2 = stage(block, 64 * wider, 128, blocks[1], 2, shortcut)
        self.layer3 = stage(block, 128 * wider, 256, blocks[2], 2, shortcut)
        self.layer4 = stage(block, 256 * wider, 512, blocks[3], 2, shortcut)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * wider, classes)
        if shortcut is not plain:
            self.apply(start_near_identity)

    def forward(self, x: Tensor) -> Tensor:  # N×3×224×224
        x = self.relu(self.bn1(self.conv1(x)))  # N×64×112×112
        x = self.maxpool(x)  # N×64×56×56
        x = self.layer1(x)  # N×64×56×56, with bottlenecks N×256×56×56
        x = self.layer2(x)  # N×128×28×28, N×512×28×28
        x = self.layer3(x)  # N×256×14×14, N×1024×14×14
        x = self.layer4(x)  # N×512×7×7, N×2048×7×7
        x = self.avgpool(x).flatten(1)  # N×512, N×2048
        return self.fc(x)  # type: ignore[no-any-return]


class CifarResNet(ScoresUnfamiliar, nn.Module):
    """Section 4.2: depth 6n + 2, three stages of n basic blocks, a small stem."""

    taps = Taps(
        last_layer="fc",
        average="avgpool",
        layers={"conv1": "layer1", "layer1": "layer2", "layer2": "layer3", "layer3": "avgpool"},
    )

    def __init__(
        self, depth: int, shortcut: Shortcut = padding, channels: int = 1, classes: int = 10
    ) -> None:
        super().__init__()
        count, rest = divmod(depth - 2, 6)
        if count < 1 or rest:
            raise ValueError(f"a depth of {depth} is not 6n + 2: take 8, 14, 20, 32, 44, 56 or 110")
        self.conv1 = convolution(channels, 16, 3)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = stage(BasicBlock, 16, 16, count, 1, shortcut)
        self.layer2 = stage(BasicBlock, 16, 32, count, 2, shortcut)
        self.layer3 = stage(BasicBlock, 32, 64, count, 2, shortcut)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, classes)
        self.apply(he_normal)

    def forward(self, x: Tensor) -> Tensor:  # N×1×32×32
        x = self.relu(self.bn1(self.conv1(x)))  # N×16×32×32
        x = self.layer1(x)
        x = self.layer2(x)  # N×32×16×16
        x = self.layer3(x)  # N×64×8×8
        x = self.avgpool(x).flatten(1)  # N×64
        return self.fc(x)  # type: ignore[no-any-return]


def stage(
    block: type[BasicBlock] | type[Bottleneck],
    channels: int,
    width: int,
    count: int,
    stride: int,
    shortcut: Shortcut,
) -> nn.Sequential:
    """The first block changes the shape, the others keep it."""
    others = (block(width * block.expansion, width, 1, shortcut) for _ in range(count - 1))
    return nn.Sequential(block(channels, width, stride, shortcut), *others)


def start_near_identity(module: nn.Module) -> None:
    if isinstance(module, BasicBlock):
        nn.init.constant_(module.bn2.weight, RESIDUAL_START)
    elif isinstance(module, Bottleneck):
        nn.init.constant_(module.bn3.weight, RESIDUAL_START)


# Table 1: the block, and its number in conv2_x to conv5_x.
plain18 = partial(ResNet, BasicBlock, (2, 2, 2, 2), plain)
plain34 = partial(ResNet, BasicBlock, (3, 4, 6, 3), plain)
resnet18 = partial(ResNet, BasicBlock, (2, 2, 2, 2))
resnet34 = partial(ResNet, BasicBlock, (3, 4, 6, 3))
resnet50 = partial(ResNet, Bottleneck, (3, 4, 6, 3))
resnet101 = partial(ResNet, Bottleneck, (3, 4, 23, 3))
resnet152 = partial(ResNet, Bottleneck, (3, 8, 36, 3))

# Table 6, with one grey channel; the depth study builds others: CifarResNet(56, plain).
plain20_digits = partial(CifarResNet, 20, plain)
resnet20_digits = partial(CifarResNet, 20, padding)
