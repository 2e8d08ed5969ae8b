"""Weights are fitted to a network as a whole: all names and shapes must be the network's own. The
file decides the number of classes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export.catalog import NETWORKS, Network
from export.checkpoints.choices import NO_CHOICES, Choices
from export.checkpoints.weight_sets import (
    BATCHES,
    StateDict,
    WeightSet,
    choose_weights,
    describe_keys,
    find_mappings,
    is_complete,
    render_names,
    weight_sets,
)
from export.errors import CheckpointError

# A number of classes that is no layer's width in the catalog: a tensor of this width is the head's.
MANY_CLASSES = 7919


def fit(
    network: Network, content: Any, path: Path, classes: int, choices: Choices = NO_CHOICES
) -> nn.Module:
    """The network with the weights in a checkpoint's content, all of them.

    Raises:
        CheckpointError: there is not one set of weights; names or shapes differ (the message names
            the first ones, and the networks that they fit); the number of classes differs from the
            labels, or there is only one and softmax.
    """
    wide = shapes(network, MANY_CLASSES)
    weights = choose_weights(content, wide.keys(), path, choices.weights_key)
    state = weights.state
    file_classes = _count_classes(network, _head(wide), state)
    module = architecture(network, file_classes, choices.transform_input)
    if differences := _differences(module.state_dict(), weights, content):
        head = _describe_head(network, _head(wide), state)
        raise CheckpointError(f"{path} does not fit {network.name}: {differences}{head}.")
    if file_classes == 1 and choices.activation == "softmax":
        raise CheckpointError(
            f"{path} has one output: softmax over one score is 1 for every picture, so that the "
            "answers would say nothing; give --activation sigmoid if it was trained with a "
            "sigmoid, as by BCEWithLogitsLoss."
        )
    if file_classes != classes:
        raise CheckpointError(
            f"{path} has {file_classes} classes, and there are {classes} labels: give --labels "
            f"FILE with {file_classes} labels: one per line in the order of the network's outputs, "
            "CSV, TSV or JSON."
        )
    module.load_state_dict(state)
    return module


def architecture(network: Network, classes: int, transform_input: bool | None = None) -> nn.Module:
    """The network with a head for so many classes, if its builder has a choice, and with pixels
    normalised again or not; None: as for the published weights.
    """
    parameters = inspect.signature(_builder(network)).parameters
    if "classes" not in parameters:
        return network.build()  # LeNet-5's ten classes are pictures of the digits
    chosen = {} if transform_input is None else {"transform_input": transform_input}
    built: nn.Module = _builder(network)(classes=classes, **chosen)
    return built


def has_transform_input(network: Network) -> bool:
    return "transform_input" in inspect.signature(_builder(network)).parameters


def _builder(network: Network) -> Any:
    module, _, name = network.architecture.partition(":")
    return getattr(import_module(f"export.architectures.{module}"), name)


def shapes(network: Network, classes: int) -> dict[str, torch.Size]:
    """The names and shapes that a file must have; takes no memory."""
    with torch.device("meta"):
        return _shapes_of(architecture(network, classes).state_dict())


def _shapes_of(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items() if not name.endswith(BATCHES)}


def _head(wide: Mapping[str, torch.Size]) -> list[str]:
    """Names of the last layer's tensors; none if the network has no choice of classes."""
    return [name for name, shape in wide.items() if shape[:1] == (MANY_CLASSES,)]


def _count_classes(network: Network, head: Iterable[str], state: StateDict) -> int:
    """Rows of the network's last layer in the file; the network's own number if it is missing."""
    for name in head:
        if name in state and state[name].shape[:1] > (0,):
            return len(state[name])
    return len(network.labels())


def _differences(own: Mapping[str, Tensor], weights: WeightSet, content: Any) -> str:
    """In words, with the networks that the weights fit; empty if nothing differs."""
    state = weights.state
    faults: dict[str, Iterable[str]] = {
        "lacks": [name for name in own if name not in state and not name.endswith(BATCHES)],
        "also has": [name for name in state if name not in own],
        "has another shape for": [
            f"{name} {list(state[name].shape)} instead of {list(own[name].shape)}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ],
    }
    keys = ""
    if any(faults.values()):
        faults["fits"] = find_fitting(content) or ["no network of the catalog"]
        keys = describe_keys(content) if weights.key and "" not in find_mappings(content) else ""
    else:
        faults["has numbers that are not finite in"] = [
            name for name, tensor in state.items() if not torch.isfinite(tensor).all()
        ]
    subject = weights.key or "it"
    found = [f"{what} {render_names([*names])}" for what, names in faults.items() if names]
    return f"{subject} {'; it '.join(found)}{keys}" if found else ""


def find_fitting(content: Any) -> list[str]:
    """Names of the networks that weights in this content fit, for their own or other classes."""
    mappings, fitting = find_mappings(content), []
    for network in NETWORKS:
        wide = shapes(network, MANY_CLASSES)
        own = wide.keys()
        sets = (weights for item in mappings.items() for weights in weight_sets(*item, own))
        for state in (weights.state for weights in sets if is_complete(weights, own)):
            classes = _count_classes(network, _head(wide), state)
            if shapes(network, classes) == _shapes_of(state):
                is_own = classes == len(network.labels())
                fitting.append(network.name if is_own else f"{network.name} with {classes} classes")
                break
    return fitting


def _describe_head(network: Network, own_head: Iterable[str], state: StateDict) -> str:
    """What to do about a head that is a Sequential of layers, if this is what differs."""
    head = next((name.removesuffix(".weight") for name in own_head), "")
    inner = [name for name in state if head and re.match(rf"{re.escape(head)}\.\d+\.", name)]
    if not inner or f"{head}.weight" in state:
        return ""
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in inner))
    named = f"; its {head} is a Sequential with weights in {render_names(layers)}"
    if len(layers) == 1 and state.get(f"{layers[0]}.weight", torch.zeros(())).dim() == 2:
        return (
            f"{named}: if only Dropout, Flatten or Identity come before, rename its weights, "
            f"`for end in ('weight', 'bias'): state[f'{head}.{{end}}'] = "
            f"state.pop(f'{layers[0]}.{{end}}')`, and save state with torch.save"
        )
    return (
        f"{named}: export the whole network, `torch.onnx.export(network, "
        f"torch.zeros(1, {network.channels}, {network.size}, {network.size}), 'model.onnx')`, and "
        "run `convoy adopt model.onnx`"
    )
