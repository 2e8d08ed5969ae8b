import torch

from export.architectures.alexnet import AlexNet2012, alexnet, alexnet_2012


def test_paper_pools_and_norms_stand_where_the_paper_has_them() -> None:
    with torch.device("meta"):
        network = alexnet_2012().eval()
    ran: list[str] = []
    for name, module in network.named_children():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    network(torch.zeros(1, 3, 227, 227, device="meta"))
    without_relus = [name for name in ran if name not in ("relu", "dropout")]
    order = "conv1 norm1 pool1 conv2 norm2 pool2 conv3 conv4 conv5 pool5 fc6 fc7 fc8"
    assert without_relus == order.split()
    # ReLU, then the response norm.
    assert ran.index("conv1") < ran.index("relu") < ran.index("norm1")
    # Dropout after the hidden linear layers.
    assert ran[-6:] == ["relu", "dropout", "fc7", "relu", "dropout", "fc8"]


def test_half_of_conv2_sees_one_gpu_alone() -> None:
    network = AlexNet2012(classes=1)
    maps = torch.zeros(1, 96, 9, 9)
    silent = network.conv2(maps)
    maps[:, :48] = 1
    changed = (network.conv2(maps) != silent).flatten(2).any(2)[0]
    assert changed.tolist() == [True] * 128 + [False] * 128
    assert network.conv3.groups == 1
    assert network.conv4.groups == network.conv5.groups == 2


def test_biases_that_the_paper_starts_at_1() -> None:
    network = AlexNet2012(classes=2)
    values = dict(network.named_parameters())
    ones = ("conv2", "conv4", "conv5", "fc6", "fc7")
    for layer in ("conv1", "conv3", "fc8", *ones):
        assert values[f"{layer}.bias"].unique().tolist() == [1 if layer in ones else 0]
    assert 0.0095 < network.conv3.weight.std() < 0.0105


def test_published_form_takes_63_pixels() -> None:
    with torch.device("meta"):
        assert alexnet().eval()(torch.zeros(1, 3, 63, 63)).shape == (1, 1000)
