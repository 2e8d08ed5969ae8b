"""Files of weights: read without running code in them, and fitted to a network as a whole.

Two formats are read: .safetensors, and what torch.save wrote, as a zip or in its older form, with
`weights_only=True`. What training scripts wrap around the tensors is removed, and so are auxiliary
heads, which only training uses. All other names and shapes must be the network's own; the file
decides the number of classes.
"""

from __future__ import annotations

import inspect
import pickle
import re
import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from export.catalog import NETWORKS, Network
from export.errors import CheckpointError

StateDict = dict[str, Tensor]

WRAPPERS = ("state_dict", "model_state_dict", "model")
DATA_PARALLEL = "module."  # before each name of a network that was trained on several GPUs
AUXILIARY_HEADS = ("aux1.", "aux2.", "AuxLogits.")  # of the published GoogLeNet and Inception v3
BATCHES = "num_batches_tracked"  # of a batch norm; old files lack it, only training reads it
# A number of classes that is no layer's width in the catalog: a tensor of this width is the head's.
MANY_CLASSES = 7919


# ------------------------------------------------------------------------------------------- read


def read_state_dict(path: Path) -> StateDict:
    """The tensors in a file, under the names that the architectures give them.

    Raises:
        CheckpointError: the file is damaged, would run code, or holds something else.
    """
    content = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and torch.is_tensor(value) for name, value in content.items()
    ):
        raise CheckpointError(
            f"{path} holds no state dict: save network.state_dict(), and nothing else, "
            "with torch.save."
        )
    # A plain dict, without the `_metadata` that makes old files without num_batches_tracked fail.
    named = {name.removeprefix(DATA_PARALLEL): tensor for name, tensor in content.items()}
    return {name: named[name] for name in named if not name.startswith(AUXILIARY_HEADS)}


def _safetensors(path: Path) -> StateDict:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}.") from error


def _torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise CheckpointError(
                f"{path} holds more than tensors, and would run {code[1]} when read: refused; save "
                "network.state_dict(), and nothing else, with torch.save or as .safetensors."
            ) from error
        raise CheckpointError(_not_read(path, "torch.save did not write it")) from error
    except Exception as error:  # damaged files end in whatever their bytes lead to
        reason = str(error).strip().partition("\n")[0].partition(". ")[0]
        raise CheckpointError(_not_read(path, reason)) from error


def _not_read(path: Path, reason: str) -> str:
    return (
        f"{path} is not a state dict that torch reads with weights_only=True ({reason}): give a "
        "whole .pth or .safetensors."
    )


# -------------------------------------------------------------------------------------------- fit


def fit(network: Network, state: StateDict, path: Path, classes: int) -> nn.Module:
    """The network with these weights, all of them.

    Raises:
        CheckpointError: names or shapes differ (the message names the first ones, and the networks
            that they fit), the number of classes differs from the labels, or there is only one.
    """
    file_classes = _count_classes(network, state)
    module = architecture(network, file_classes)
    if differences := _differences(module.state_dict(), state):
        raise CheckpointError(f"{path} does not fit {network.name}: {differences}.")
    if file_classes == 1:
        raise CheckpointError(
            f"{path} has one output: softmax over one score is 1 for every picture, so that the "
            "answers would say nothing; train two outputs, such as good and defect."
        )
    if file_classes != classes:
        raise CheckpointError(
            f"{path} has {file_classes} classes, and there are {classes} labels: give --labels "
            f"FILE with {file_classes} labels: one per line in the order of the network's outputs, "
            "CSV, TSV or JSON."
        )
    module.load_state_dict(state)
    return module


def architecture(network: Network, classes: int) -> nn.Module:
    """The network with a head for so many classes, if its builder has a choice."""
    module, _, name = network.architecture.partition(":")
    builder = getattr(import_module(f"export.architectures.{module}"), name)
    if "classes" not in inspect.signature(builder).parameters:
        return network.build()  # LeNet-5's ten classes are pictures of the digits
    built: nn.Module = builder(classes=classes)
    return built


def shapes(network: Network, classes: int) -> dict[str, torch.Size]:
    """The names and shapes that a file must have; takes no memory."""
    with torch.device("meta"):
        return _without_batches(architecture(network, classes).state_dict())


def _without_batches(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items() if not name.endswith(BATCHES)}


def _count_classes(network: Network, state: StateDict) -> int:
    """Rows of the network's last layer in the file; the network's own number if it is missing."""
    for name, shape in shapes(network, MANY_CLASSES).items():
        if shape[:1] == (MANY_CLASSES,) and name in state and state[name].shape[:1] > (0,):
            return len(state[name])
    return len(network.labels())


def _differences(own: Mapping[str, Tensor], state: StateDict) -> str:
    """In words, with the networks that the weights fit; empty if nothing differs."""
    faults = {
        "lacks": [name for name in own if name not in state and not name.endswith(BATCHES)],
        "also has": [name for name in state if name not in own],
        "has another shape for": [
            f"{name} {list(state[name].shape)} instead of {list(own[name].shape)}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ],
    }
    if any(faults.values()):
        faults["fits"] = find_fitting(state) or ["no network of the catalog"]
    else:
        faults["has numbers that are not finite in"] = [
            name for name, tensor in state.items() if not torch.isfinite(tensor).all()
        ]
    return "; ".join(f"it {what} {_render_names(names)}" for what, names in faults.items() if names)


def find_fitting(state: StateDict) -> list[str]:
    """Names of the networks that these weights fit, for their own or other classes."""
    names = []
    for network in NETWORKS:
        classes = _count_classes(network, state)
        if shapes(network, classes) == _without_batches(state):
            own = classes == len(network.labels())
            names.append(network.name if own else f"{network.name} with {classes} classes")
    return names


def _render_names(names: list[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest
