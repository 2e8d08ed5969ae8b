"""LeNet-5, the network that read digits on bank cheques in 1998.

LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition",
Proceedings of the IEEE 86(11), 1998, section II.B and figure 2.

Convolution and sub-sampling alternate: the position of a stroke matters less and less, the kind of
stroke more and more. The last 84 numbers are a picture of 7×12 pixels, and the digit whose ideal
picture is nearest wins.

Input: N×1×32×32, paper -0.1, ink 1.175, the digit in the middle. Output: ten logits, the negative
squared distances times `scale`. Trainable parameters: 60,000, exactly as printed.

It differs from the paper in:
- The paper's loss is its equation 9, a softmax over negative distances with a rubbish class at a
  distance j. So are the weights that ship trained (export/training), over distances times 0.1, with
  j = 30, and with pictures of what is no digit in the rubbish class.
- The paper stops at distances; served answers are probabilities, softmax(-scale * distance). At the
  paper's scale of 1 they are badly overconfident on drawn digits (expected calibration error 0.033
  against 0.022). The scale belongs to the weights, so it is in their state dict.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.architectures.taps import Taps
from export.architectures.unfamiliar import ScoresUnfamiliar

# The S2 maps that each C3 map reads (table I): six runs of 3, nine sets of 4, and all 6. Maps with
# different inputs learn different features, and 1,500 weights are enough instead of 2,400.
# fmt: off
C3_READS = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5),
)
# fmt: on

# The ideal picture of each digit (figure 3), 12 rows of 7: ink is +1, paper -1.
CODES = """
    .#####. ...##.. .#####. ####### .#####. .#####. ..####. ####### .#####. .#####.
    ....... ..###.. ....... .....## ....... ....... .##.... .....## ##...## ##..###
    ..###.. .####.. .#####. ....##. ....... ####### ##..... .....## ##...## ##...##
    .##.##. ...##.. ##...## ...##.. .##..## ##..... ##..... ....##. ##...## ##...##
    ##...## ...##.. #....## ..####. .##..## ##..... ######. ...##.. .#####. ##..###
    ##...## ...##.. ....##. .....## ###..## .####.. ###..## ...##.. ##...## .######
    ##...## ...##.. ..###.. .....## ##...## ..####. ##...## ..##... ##...## .....##
    ##...## ...##.. .##.... .....## ##...## .....## ##...## ..##... ##...## .....##
    .##.##. ...##.. ##..... ##...## ##..### ##...## ###..## ..##... ##...## ....##.
    ..###.. .###### ####### .#####. .###### .#####. .#####. ..##... .#####. .####..
    ....... ....... ....... ....... .....## ....... ....... ....... ....... .......
    ....... ....... ....... ....... .....## ....... ....... ....... ....... .......
"""


def squash(x: Tensor) -> Tensor:
    """The paper's sigmoid through (1, 1) and (-1, -1), where it is most curved (appendix A)."""
    return 1.7159 * torch.tanh(x * (2 / 3))


class SubSampling(nn.Module):
    """The sum over 2×2 pixels, times one coefficient per map, plus one bias per map."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.full((maps, 1, 1), 0.5))
        self.bias = nn.Parameter(torch.zeros(maps, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, 2) * (4 * self.coefficient) + self.bias


class SparseConvolution(nn.Module):
    """C3: each map reads only some of the maps before it.

    The 60 kernels are its only weights. They are laid out over a plain convolution, 0 where a map
    is not read, which is folded into constants on export; grouped convolutions, the other way to
    have no dead weights, train twelve times slower.
    """

    place: Tensor

    def __init__(self) -> None:
        super().__init__()
        kernels: list[Tensor] = []
        place = torch.full((16, 6), 60)  # the kernel of each connection; the 61st is all zeros
        for after, reads in enumerate(C3_READS):
            for before in reads:
                place[after, before] = len(kernels)
                kernels.append(_spread(torch.empty(5, 5), inputs=25 * len(reads)))
        self.weight = nn.Parameter(torch.stack(kernels))  # 60×5×5
        self.bias = nn.Parameter(torch.zeros(16))
        self.register_buffer("place", place, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        kernels = functional.pad(self.weight, (0, 0, 0, 0, 0, 1))  # 61×5×5
        return functional.conv2d(x, kernels[self.place], self.bias)  # weight 16×6×5×5


class RadialBasis(nn.Module):
    """Squared distances to the ten codes, in float32 at any precision, since they reach 620."""

    codes: Tensor

    def __init__(self) -> None:
        super().__init__()
        columns = zip(*(row.split() for row in CODES.split("\n") if row), strict=True)
        pixels = [[1.0 if pixel == "#" else -1.0 for pixel in "".join(digit)] for digit in columns]
        self.register_buffer("codes", torch.tensor(pixels), persistent=False)  # 10×84

    def forward(self, features: Tensor) -> Tensor:
        difference = features.float().unsqueeze(1) - self.codes.float()  # N×10×84
        return difference.square().sum(2)  # N×10


class LeNet5(ScoresUnfamiliar, nn.Module):
    scale: Tensor
    # Each layer as the next one takes it: squashed.
    taps = Taps(
        last_layer="output",
        layers={"C1": "s2", "S2": "c3", "C3": "s4", "S4": "c5", "C5": "f6", "F6": "output"},
    )
    rejection = -3.0  # the score of "none of these": a distance of 30, the j of equation 9

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(1, 6, 5)
        self.s2 = SubSampling(6)
        self.c3 = SparseConvolution()
        self.s4 = SubSampling(16)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.output = RadialBasis()
        self.register_buffer("scale", torch.tensor(0.1))
        self.apply(_initialise)

    def distances(self, image: Tensor) -> Tensor:
        """Squared distance to each digit's code, N×10: the smallest wins."""
        x = squash(self.c1(image))  # N×6×28×28
        x = squash(self.s2(x))  # N×6×14×14
        x = squash(self.c3(x))  # N×16×10×10
        x = squash(self.s4(x))  # N×16×5×5
        x = squash(self.c5(x))  # N×120×1×1
        x = squash(self.f6(x.flatten(1)))  # N×84
        distances: Tensor = self.output(x)
        return distances

    def forward(self, image: Tensor) -> Tensor:
        return -self.scale.float() * self.distances(image)  # N×10


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        _spread(module.weight, inputs=module.weight[0].numel())
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _spread(weight: Tensor, inputs: int) -> Tensor:
    """Uniform within ±2.4 / number of a unit's inputs (appendix A)."""
    return nn.init.uniform_(weight, -2.4 / inputs, 2.4 / inputs)


def lenet5() -> LeNet5:
    return LeNet5()
