import pytest
import torch
from torch import nn

from export.architectures.resnet import (
    RESIDUAL_START,
    BasicBlock,
    Bottleneck,
    CifarResNet,
    PaddedShortcut,
    Shortcut,
    padding,
    plain,
    plain18,
    plain20_digits,
    projection,
    resnet18,
    resnet50,
    resnet152,
)
from export.layers import describe_module


def test_a_block_adds_its_input() -> None:
    torch.manual_seed(0)
    residual = BasicBlock(4, 4, 1, padding).eval()
    without = BasicBlock(4, 4, 1, plain).eval()
    without.load_state_dict(residual.state_dict())
    x = torch.rand(2, 4, 5, 5)
    nn.init.zeros_(residual.bn2.weight)
    nn.init.zeros_(without.bn2.weight)
    assert torch.equal(residual(x), x)
    assert not without(x).any()


def test_padded_shortcut_takes_every_second_pixel_and_adds_silent_channels() -> None:
    x = torch.rand(2, 3, 6, 6)
    y = PaddedShortcut(new_channels=2, stride=2)(x)
    assert y.shape == (2, 5, 3, 3)
    assert torch.equal(y[:, :3], x[:, :, [0, 2, 4]][:, :, :, [0, 2, 4]])
    assert not y[:, 3:].any()


@pytest.mark.parametrize("shortcut", [padding, projection])
def test_shortcut_is_the_identity_where_the_shape_stays(shortcut: Shortcut) -> None:
    assert isinstance(shortcut(16, 16, 1), nn.Identity)
    assert not isinstance(shortcut(16, 32, 2), nn.Identity)


def test_bottleneck_strides_in_its_3x3_and_a_basic_block_in_its_first() -> None:
    with torch.device("meta"):
        bottleneck, basic = resnet50().layer2[0], resnet18().layer2[0]
    assert isinstance(bottleneck, Bottleneck) and isinstance(basic, BasicBlock)
    assert [each.stride for each in (bottleneck.conv1, bottleneck.conv2, bottleneck.conv3)] == [
        (1, 1),
        (2, 2),
        (1, 1),
    ]
    assert (basic.conv1.stride, basic.conv2.stride) == ((2, 2), (1, 1))


def start(network: nn.Module, norm: str) -> float:
    """The value that all weights of a norm start with."""
    (value,) = network.get_parameter(f"{norm}.weight").unique().tolist()
    return float(value)


def test_only_residual_blocks_start_near_the_identity() -> None:
    assert start(resnet18(), "layer1.0.bn2") == pytest.approx(RESIDUAL_START)
    assert start(resnet18(), "layer1.0.bn1") == 1
    assert start(plain18(), "layer1.0.bn2") == 1
    with torch.device("cpu"):
        assert start(plain20_digits(), "layer1.0.bn2") == 1


def test_last_norm_of_a_bottleneck_starts_small() -> None:
    network = resnet152()
    assert start(network, "layer1.0.bn3") == pytest.approx(RESIDUAL_START)
    assert start(network, "layer1.0.bn2") == 1


@pytest.mark.parametrize(
    ("depth", "parameters", "macs"),
    [
        (20, 269_722, 40_551_040),
        (32, 464_154, 68_862_592),
        (44, 658_586, 97_174_144),
        (56, 853_018, 125_485_696),
        (110, 1_727_962, 252_887_680),
    ],
)
@pytest.mark.parametrize("shortcut", [plain, padding])
def test_plain_and_residual_cost_the_same_at_every_depth_of_table_6(
    shortcut: Shortcut, depth: int, parameters: int, macs: int
) -> None:
    with torch.device("meta"):
        network = CifarResNet(depth, shortcut, channels=3).eval()
    totals = describe_module(network, 3, 32).totals
    assert (totals.parameters, totals.macs) == (parameters, macs)


def test_projections_at_depth_20_cost_what_the_paper_says_of_option_b() -> None:
    with torch.device("meta"):
        network = CifarResNet(20, projection, channels=3)
    assert sum(parameter.numel() for parameter in network.parameters()) == 272_474


def test_depth_counts_the_layers_with_weights() -> None:
    with torch.device("meta"):
        network = CifarResNet(44, padding)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == 44


@pytest.mark.parametrize("depth", [2, 21, -4])
def test_other_depths_are_refused_with_the_ones_there_are(depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth of {depth} .*20, 32, 44, 56"):
        CifarResNet(depth)
