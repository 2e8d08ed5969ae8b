"""AlexNet, the network that in 2012 made convolutions the method for photographs; two forms.

alexnet_2012, the paper to the letter: A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet
Classification with Deep Convolutional Neural Networks", NIPS 2012, doi 10.1145/3065386, section 3
and figure 2. Input N×3×227×227, normalised; 60,965,224 parameters.

alexnet, the network of the published weights: A. Krizhevsky, "One weird trick for parallelizing
convolutional neural networks", 2014, arXiv 1404.5997. Input N×3×H×W, normalised; 224×224 in the
paper, at least 63×63; 61,100,840 parameters. Attribute names are those of torchvision's AlexNet, so
that its checkpoint loads by its keys.

Both return N×1000 logits.

alexnet_2012 differs from the paper in:
- the input: the paper says 224, but (224 - 11) / 4 is not an integer; its 55×55 needs 227;
- the mean: the paper subtracts the training set's mean per pixel, which is not published.
alexnet follows torchvision's models/alexnet.py and differs from the paper of 2012 in:
- one tower without groups, first 64 and 192 channels, no response normalisation;
- dropout before fc6 and fc7, where the paper has it after them;
- an adaptive pool before the linear layers, the identity at 224.
"""

from __future__ import annotations

from torch import Tensor, nn

from export.architectures.normalization import LocalResponseNorm
from export.architectures.taps import Taps

CLASSES = 1000


class AlexNet2012(nn.Module):
    """`groups=2` are the two GPUs: only conv3 and the linear layers read the maps of both."""

    taps = Taps(last_layer="fc8")

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, kernel_size=11, stride=4)
        self.norm1 = paper_norm()
        self.pool1 = paper_pool()
        self.conv2 = nn.Conv2d(96, 256, kernel_size=5, padding=2, groups=2)
        self.norm2 = paper_norm()
        self.pool2 = paper_pool()
        self.conv3 = nn.Conv2d(256, 384, kernel_size=3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, kernel_size=3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, kernel_size=3, padding=1, groups=2)
        self.pool5 = paper_pool()
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, classes)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.5)
        self._initialise()

    def forward(self, x: Tensor) -> Tensor:  # N×3×227×227
        x = self.relu(self.conv1(x))  # N×96×55×55
        x = self.pool1(self.norm1(x))  # N×96×27×27
        x = self.relu(self.conv2(x))  # N×256×27×27
        x = self.pool2(self.norm2(x))  # N×256×13×13
        x = self.relu(self.conv3(x))  # N×384×13×13
        x = self.relu(self.conv4(x))
        x = self.relu(self.conv5(x))  # N×256×13×13
        x = self.pool5(x).flatten(1)  # N×9216, of 256×6×6
        x = self.dropout(self.relu(self.fc6(x)))  # N×4096
        x = self.dropout(self.relu(self.fc7(x)))
        logits: Tensor = self.fc8(x)  # N×1000
        return logits

    def _initialise(self) -> None:
        """Section 5: a bias of 1 gives the ReLUs positive inputs from the first step."""
        ones = (self.conv2, self.conv4, self.conv5, self.fc6, self.fc7)
        for layer in (self.conv1, self.conv3, self.fc8, *ones):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.get_parameter("bias"), 1.0 if layer in ones else 0.0)


def paper_norm() -> LocalResponseNorm:
    return LocalResponseNorm(size=5, alpha=1e-4, beta=0.75, k=2.0)  # section 3.3


def paper_pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(kernel_size=3, stride=2)  # overlapping: section 3.4


class AlexNet(nn.Module):
    taps = Taps(last_layer="classifier.6")

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.features = nn.Sequential(  # N×3×224×224
            nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),  # N×64×55×55
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),  # N×64×27×27
            nn.Conv2d(64, 192, kernel_size=5, padding=2),  # N×192×27×27
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),  # N×192×13×13
            nn.Conv2d(192, 384, kernel_size=3, padding=1),  # N×384×13×13
            nn.ReLU(),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),  # N×256×13×13
            nn.ReLU(),
            nn.Conv2d(256, 256, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),  # N×256×6×6
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(  # N×9216
            nn.Dropout(0.5),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, classes),  # N×1000
        )

    def forward(self, x: Tensor) -> Tensor:
        features = self.avgpool(self.features(x))  # N×256×6×6
        logits: Tensor = self.classifier(features.flatten(1))  # N×1000
        return logits


def alexnet(classes: int = CLASSES) -> AlexNet:
    return AlexNet(classes)


def alexnet_2012(classes: int = CLASSES) -> AlexNet2012:
    return AlexNet2012(classes)
