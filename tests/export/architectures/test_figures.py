"""Every architecture against the figures of its paper and the keys of its published checkpoint."""

import importlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from export.layers import Layer, describe_module

DATA = Path(__file__).parents[2] / "data" / "architectures.json"
FIGURES: dict[str, Any] = json.loads(DATA.read_text())["networks"]
CIFAR = ("plain20", "resnet20")
MODULES = {
    "lenet5": "lenet",
    "alexnet": "alexnet",
    "alexnet_2012": "alexnet",
    "nin": "nin",
    "nin_cifar10": "nin",
    "googlenet": "googlenet",
    "googlenet_2014": "googlenet",
    "inception_v3": "inception_v3",
    **{name: "vgg" for name in FIGURES if name.startswith("vgg")},
    **{name: "resnet" for name in FIGURES if name.startswith(("plain", "resnet"))},
}
DIGITS = {
    "nin:nin_digits": 48_418,
    "googlenet:inception_digits": 69_138,
    "vgg:vgg_digits": 220_794,
    "resnet:plain20_digits": 269_434,
    "resnet:resnet20_digits": 269_434,
}
# The sub-sampling and the distances of LeNet-5 are compared in test_describe.py. The figures leave
# out the pools in the branches that halve the picture.
COMPARED = ("convolution", "linear", "batch norm", "max pool")


def build(name: str, **options: Any) -> Any:
    """Without numbers: VGG-19 is made at once."""
    with torch.device("meta"):
        if name in CIFAR:
            resnet = importlib.import_module("export.architectures.resnet")
            shortcut = resnet.plain if name == "plain20" else resnet.padding
            return resnet.CifarResNet(20, shortcut, channels=3).eval()
        module = importlib.import_module(f"export.architectures.{MODULES[name]}")
        return getattr(module, name)(**options).eval()


def row(layer: Layer) -> tuple[Any, ...]:
    geometry = [list(pair) if pair else None for pair in (layer.kernel, layer.stride)]
    padding = list(layer.padding) if layer.padding else None
    return layer.kind, *geometry, padding, layer.groups, list(layer.output), layer.parameters


@pytest.mark.parametrize("name", FIGURES)
def test_totals_are_those_of_the_figures(name: str) -> None:
    channels, size, _ = FIGURES[name]["input"]
    totals = describe_module(build(name), channels, size).totals
    for figure, value in FIGURES[name]["totals"].items():
        assert getattr(totals, figure) == value, figure


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "lenet5"])
def test_layers_are_those_of_the_figures(name: str) -> None:
    channels, size, _ = FIGURES[name]["input"]
    layers = describe_module(build(name), channels, size).layers
    got = Counter(repr((*row(layer), layer.macs)) for layer in layers if layer.kind in COMPARED)
    expected = Counter(repr(tuple(layer)) for layer in FIGURES[name]["layers"])
    assert not expected - got
    besides = {
        layer.name
        for layer in layers
        if layer.kind in COMPARED and repr((*row(layer), layer.macs)) in got - expected
    }
    assert besides == ({"Mixed_6a.pool", "Mixed_7a.pool"} if name == "inception_v3" else set())


@pytest.mark.parametrize("name", [name for name in FIGURES if "state_dict" in FIGURES[name]])
def test_state_dict_has_the_keys_and_shapes_of_the_published_checkpoint(name: str) -> None:
    has_heads = "parameters_with_heads" in FIGURES[name]
    network = build(name, aux_heads=True) if has_heads else build(name)
    keys = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
    assert keys == FIGURES[name]["state_dict"]


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_a_network_without_heads_lacks_their_keys_alone(name: str) -> None:
    heads = ("aux1.", "aux2.", "AuxLogits.")
    expected = {key for key in FIGURES[name]["state_dict"] if not key.startswith(heads)}
    assert set(build(name).state_dict()) == expected


@pytest.mark.parametrize(
    "name", [name for name in FIGURES if "parameters_with_heads" in FIGURES[name]]
)
def test_heads_have_the_parameters_of_the_figures(name: str) -> None:
    network = build(name, aux_heads=True)
    total = sum(parameter.numel() for parameter in network.parameters())
    assert total == FIGURES[name]["parameters_with_heads"]


@pytest.mark.parametrize(("builder", "expected"), DIGITS.items())
def test_digit_networks_are_as_small_as_measured(builder: str, expected: int) -> None:
    module, _, name = builder.partition(":")
    network = getattr(importlib.import_module(f"export.architectures.{module}"), name)().eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == expected
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "lenet5"])
def test_output_is_one_logit_a_class(name: str) -> None:
    channels, size, _ = FIGURES[name]["input"]
    network = build(name)
    logits = network(torch.zeros(3, channels, size, size, device="meta"))
    assert logits.shape == (3, 1000 if size > 32 else 10)
