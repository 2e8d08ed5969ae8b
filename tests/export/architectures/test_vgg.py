import torch
from torch import nn

from export.architectures.vgg import VGG, vgg_digits


def test_dropout_follows_both_hidden_layers() -> None:
    kinds = [type(layer).__name__ for layer in vgg_digits().classifier]
    assert kinds == ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]


def test_relu_follows_every_convolution_and_its_norm() -> None:
    for batch_norm in (False, True):
        network = VGG((2, 1), (3, 4), batch_norm=batch_norm, side=1, hidden=2, classes=2)
        kinds = [type(layer).__name__ for layer in network.features]
        conv = ["Conv2d", "BatchNorm2d", "ReLU"] if batch_norm else ["Conv2d", "ReLU"]
        assert kinds == [*conv, *conv, "MaxPool2d", *conv, "MaxPool2d"]


def test_adaptive_pool_is_the_identity_at_224_and_its_like() -> None:
    features = torch.rand(1, 64, 4, 4)  # of digits, as 7×7 is of 224×224
    assert torch.equal(vgg_digits().avgpool(features), features)


def test_networks_without_batch_norm_start_alive() -> None:
    torch.manual_seed(0)
    network = vgg_digits().eval()
    features = network.features(torch.randn(8, 1, 32, 32))
    assert 1 < features.square().mean().sqrt() < 10  # 1 goes in; PyTorch's own start leaves 0.02
    convolutions = [layer for layer in network.features if isinstance(layer, nn.Conv2d)]
    assert all(layer.bias is not None and not layer.bias.any() for layer in convolutions)
