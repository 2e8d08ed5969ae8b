"""VGG: K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", 2014, arXiv 1409.1556, section 2 and table 1.

All convolutions are 3x3, because two of them see as far as one 5x5 and cost less; after each stage
the picture halves and the channels double.

Input N×3×H×W, normalised; 224×224 in the paper, at least 32×32. Output N×1000, logits.
`vgg_digits` is the idea at the size of a digit: N×1×32×32 to N×10.

Attribute names are those of torchvision's VGG, so that the published checkpoints load by their
keys.

It differs from the paper in:
- the `_bn` forms: a batch norm after each convolution (Ioffe, Szegedy, 2015, arXiv 1502.03167); the
  convolution's bias is then redundant and kept for the published weights (torchvision,
  models/vgg.py).
- an adaptive pool before the linear layers, the identity at 224 (the same file).
- the initial weights: He's. The paper initialises the deeper ones from a trained configuration A.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import Tensor, nn

from export.architectures.initialization import he_normal
from export.architectures.taps import Taps
from export.architectures.unfamiliar import ScoresUnfamiliar

# Channels of the convolutions, per stage.
IMAGENET_WIDTHS = (64, 128, 256, 512, 512)
DIGIT_WIDTHS = (16, 32, 64)


class VGG(nn.Module):
    def __init__(
        self,
        convolutions: tuple[int, ...],  # in each stage
        widths: tuple[int, ...] = IMAGENET_WIDTHS,
        *,
        batch_norm: bool = False,
        channels: int = 3,
        side: int = 7,  # pixels, of the linear layers' input
        hidden: int = 4096,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(*stages(channels, convolutions, widths, batch_norm))
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        self.classifier = nn.Sequential(
            nn.Linear(widths[-1] * side * side, hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden, classes),
        )
        pools = [n for n, layer in enumerate(self.features) if isinstance(layer, nn.MaxPool2d)]
        self.taps = Taps(
            last_layer="classifier.6",
            layers={f"stage{stage}": f"features.{n}" for stage, n in enumerate(pools, start=1)},
        )
        self.apply(he_normal)

    def forward(self, x: Tensor) -> Tensor:  # N×3×224×224, digits N×1×32×32
        x = self.avgpool(self.features(x))  # N×512×7×7, N×64×4×4
        logits: Tensor = self.classifier(x.flatten(1))  # N×1000, N×10
        return logits


class DigitVGG(ScoresUnfamiliar, VGG):
    """N×1×32×32 to N×10."""


def stages(
    channels: int, convolutions: tuple[int, ...], widths: tuple[int, ...], batch_norm: bool
) -> Iterator[nn.Module]:
    """Flat, because the checkpoints number the layers consecutively."""
    for count, width in zip(convolutions, widths, strict=True):
        for _ in range(count):
            yield nn.Conv2d(channels, width, kernel_size=3, padding=1)
            if batch_norm:
                yield nn.BatchNorm2d(width)
            yield nn.ReLU()
            channels = width
        yield nn.MaxPool2d(kernel_size=2, stride=2)  # 224, 112, 56, 28, 14, 7


# Table 1: configurations A, B, D and E.
A, B, D, E = (1, 1, 2, 2, 2), (2, 2, 2, 2, 2), (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)

vgg11 = partial(VGG, A)
vgg13 = partial(VGG, B)
vgg16 = partial(VGG, D)
vgg19 = partial(VGG, E)
vgg11_bn = partial(VGG, A, batch_norm=True)
vgg13_bn = partial(VGG, B, batch_norm=True)
vgg16_bn = partial(VGG, D, batch_norm=True)
vgg19_bn = partial(VGG, E, batch_norm=True)
vgg_digits = partial(DigitVGG, (2, 2, 2), DIGIT_WIDTHS, channels=1, side=4, hidden=128, classes=10)
