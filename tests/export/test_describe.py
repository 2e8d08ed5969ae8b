import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from export.architectures.googlenet import inception_digits
from export.architectures.inception_v3 import inception_v3
from export.architectures.lenet import lenet5
from export.catalog import find
from export.layers import Description, describe_module, describe_network, macs, parameters
from tests.export.conftest import RunScript

ROOT = Path(__file__).parents[2]
FIGURES = json.loads((ROOT / "tests" / "data" / "architectures.json").read_text())["networks"]


@pytest.fixture(scope="module")
def lenet() -> Description:
    return describe_network(find("lenet5"))


def test_connections_of_lenet5_are_those_printed_in_the_paper(lenet: Description) -> None:
    counted = {layer.name.upper(): layer.connections for layer in lenet.layers}
    assert counted == FIGURES["lenet5"]["connections"]
    assert lenet.totals.connections == 340_908


def test_layers_of_lenet5_are_those_of_the_paper(lenet: Description) -> None:
    rows = [[layer.kind, layer.kernel, layer.output, layer.parameters] for layer in lenet.layers]
    assert rows == [
        ["convolution", (5, 5), (6, 28, 28), 156],
        ["sub-sampling", (2, 2), (6, 14, 14), 12],
        ["convolution", (5, 5), (16, 10, 10), 1516],
        ["sub-sampling", (2, 2), (16, 5, 5), 32],
        ["convolution", (5, 5), (120, 1, 1), 48120],
        ["linear", None, (84,), 10164],
        ["distances", None, (10,), 0],
    ]


def test_a_grouped_convolution_is_counted_by_what_it_multiplies() -> None:
    layer = nn.Sequential(nn.Conv2d(4, 6, (1, 3), stride=2, padding=(0, 1), groups=2))
    (row,) = describe_module(layer, 4, 8).layers
    assert (row.kernel, row.stride, row.padding, row.groups) == ((1, 3), (2, 2), (0, 1), 2)
    assert row.output == (6, 4, 4)
    assert row.activations == 6 * 4 * 4
    assert row.parameters == row.weights + 6 == 6 * 2 * 3 + 6
    assert row.macs == 6 * 4 * 4 * 2 * 3
    assert row.connections == row.macs + 6 * 4 * 4


def test_norms_and_pools_multiply_nothing() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)).eval()
    description = describe_module(network, 3, 8)
    assert [layer.macs for layer in description.layers] == [0, 0, 0]
    assert [layer.output for layer in description.layers] == [(3, 8, 8), (3, 4, 4), (3, 1, 1)]
    assert description.totals.parameters == 6
    assert description.totals.neurons == 0


def test_a_network_with_numbers_is_counted_and_left_as_it_was() -> None:
    network = lenet5().eval()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    assert macs(network, 1, 32) == 325_680
    assert parameters(network) == 60_000
    after = network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not [module for module in network.modules() if module._forward_hooks]


def test_blocks_name_the_channels_of_each_branch() -> None:
    with torch.device("meta"):
        network = inception_digits().eval()
    blocks = {block.name: block for block in describe_module(network, 1, 32).blocks}
    assert list(blocks["inception3a"].branches.values()) == [[16], [16, 32], [4, 8], [8]]
    assert blocks["inception3a"].output == (64, 8, 8)
    assert blocks["conv1"].branches == {}


def test_numbered_convolutions_of_a_branch_belong_together() -> None:
    with torch.device("meta"):
        network = inception_v3().eval()
    blocks = {block.name: block for block in describe_module(network, 3, 299).blocks}
    assert blocks["Mixed_7b"].branches == {
        "branch1x1": [320],
        "branch3x3": [384, 384, 384],
        "branch3x3dbl": [448, 384, 384, 384],
        "branch_pool": [192],
    }


def test_blocks_have_all_that_the_layers_have() -> None:
    description = describe_network(find("resnet152"))
    names = "conv1 bn1 maxpool layer1 layer2 layer3 layer4 avgpool fc"
    assert [block.name for block in description.blocks] == names.split()
    totals = asdict(description.totals)
    for figure in ("parameters", "macs"):
        assert sum(getattr(block, figure) for block in description.blocks) == totals[figure]
    assert description.blocks[6].output == (2048, 7, 7)


def test_script_prints_the_papers_figures(run_script: RunScript) -> None:
    shown = run_script("export/describe.py", "lenet5")
    assert "151,600" in shown
    assert "16×10×10" in shown
    assert "Parameters 60,000, MACs 325,680, neurons 6,508, connections 340,908." in shown


def command(*arguments: str) -> tuple[int, str, str]:
    import typer

    from export.describe import describe

    app = typer.Typer()
    app.command()(describe)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_json_has_the_same_for_programs() -> None:
    code, stdout, _ = command("resnet152", "--json")
    assert code == 0
    printed = json.loads(stdout)
    assert printed["input"] == [3, 224, 224]
    assert printed["totals"]["parameters"] == 60_192_808
    assert printed["layers"][0] == {
        "name": "conv1",
        "kind": "convolution",
        "kernel": [7, 7],
        "stride": [2, 2],
        "padding": [3, 3],
        "groups": 1,
        "output": [64, 112, 112],
        "parameters": 9408,
        "weights": 9408,
        "macs": 118_013_952,
        "connections": 118_013_952,
        "activations": 64 * 112 * 112,
    }


def test_unknown_network_is_answered_with_the_nearest() -> None:
    code, stdout, stderr = command("resnet151")
    assert code == 2
    assert stdout == ""
    assert stderr.startswith("No network is called 'resnet151': did you mean ")
    assert "resnet152" in stderr
