"""Where a network's weights come from: `--weights imagenet`, `digits`, `random`, or a file.

Weights never become random by silence. Random ones are seeded and calibrated: a deep network with
plain random weights answers every picture alike, and no test through it would mean anything. So
each layer, in the order in which the images reach it, is set to its own statistics on a fixed set
of images, and the logits are centred and spread; activations neither die nor overflow in fp16.
"""

from __future__ import annotations

import hashlib
import json
import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convoy.v1 import classifier_pb2 as pb
from export.catalog import Checkpoint, Network
from export.errors import CheckpointError
from export.samples import CALIBRATION_SEED, samples

TRAINED = Path(__file__).with_name("weights")  # by export/train.py
CALIBRATION_IMAGES = 16
# Standard deviation of calibrated random logits. Wide enough that two pictures' answers differ by
# more than two runtimes may; wider, and fp16's rounding grows with it.
LOGIT_SPREAD = 4.0


@dataclass(frozen=True)
class Loaded:
    """A network with its weights, and what is known of them."""

    network: nn.Module
    weights: pb.Weights
    preprocessing: pb.Preprocessing
    accuracy: tuple[pb.Accuracy, ...] = ()


def load(network: Network, weights: str, seed: int = 0) -> Loaded:
    """The network with the weights that `--weights` names.

    Raises:
        CheckpointError: they cannot be had, or do not fit.
    """
    match weights:
        case "random":
            return _random(network, seed)
        case "digits":
            return _digits(network)
        case "imagenet":
            raise CheckpointError(_no_download(network))
        case _:
            return _file(network, Path(weights))


def _no_download(network: Network) -> str:
    if not network.checkpoints:
        return f"No weights for {network.name} are published: give --weights FILE, or random."
    return (
        f"This version does not download weights: give --weights FILE with a copy of "
        f"{network.checkpoints[0].file}, or --weights random for seeded weights that mean nothing."
    )


# ------------------------------------------------------------------------------------------ files


def _digits(network: Network) -> Loaded:
    path = TRAINED / f"{network.name}.pth"
    if network.weights != "digits":
        raise CheckpointError(
            f"{network.name} is not trained on digits: give --weights imagenet, random or FILE."
        )
    if not path.exists():
        raise CheckpointError(
            f"There is no {path}: run `python export/train.py {network.name}`, "
            "or give --weights random."
        )
    loaded = _file(network, path)
    facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    if facts["sha256"] != loaded.weights.sha256:
        raise CheckpointError(
            f"{path} is not the file that {path.stem}.json measured: "
            f"run `python export/train.py {network.name}` again."
        )
    weights = pb.Weights(source="digits", sha256=loaded.weights.sha256, file=path.name)
    accuracy = tuple(pb.Accuracy(**entry) for entry in facts["accuracy"])
    return Loaded(loaded.network, weights, network.preprocessing, accuracy)


def _file(network: Network, path: Path) -> Loaded:
    if not path.is_file():
        raise CheckpointError(
            f"There is no file {path}: --weights takes imagenet, digits, random, "
            "or the path of a .pth."
        )
    module = network.build()
    fit(module, read(path), path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    published = _published(network, sha256)
    return Loaded(
        module.eval(),
        pb.Weights(source=published.source if published else "file", sha256=sha256, file=path.name),
        published.preprocessing if published else network.preprocessing,
    )


def _published(network: Network, sha256: str) -> Checkpoint | None:
    """The published checkpoint that a file is, known by its content and whatever its name."""
    matching = (file for file in network.checkpoints if sha256.startswith(file.sha256_prefix))
    return next(matching, None)


def read(path: Path) -> dict[str, Tensor]:
    """The state dict in a .pth, out of the wrappers that training scripts put around it."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a state dict that torch reads with weights_only=True: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(map(torch.is_tensor, content.values())):
        raise CheckpointError(
            f"{path} holds no state dict: save network.state_dict(), and nothing else, "
            "with torch.save."
        )
    # A plain dict, without the `_metadata` that makes old files without num_batches_tracked fail.
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def fit(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Loads the state dict, all of it and nothing less.

    Raises:
        CheckpointError: names or shapes differ; the message names the first of them.
    """
    own = module.state_dict()
    faults = {
        "lacks": [
            name for name in own if name not in state and not name.endswith("num_batches_tracked")
        ],
        "has besides": [name for name in state if name not in own],
        "has another shape for": [
            f"{name} {list(state[name].shape)} instead of {list(own[name].shape)}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ],
        "has numbers that are not finite in": [
            name for name, tensor in state.items() if not torch.isfinite(tensor).all()
        ],
    }
    if any(faults.values()):
        found = "; ".join(f"it {what} {_some(names)}" for what, names in faults.items() if names)
        raise CheckpointError(f"{path} does not fit {type(module).__name__}: {found}.")
    module.load_state_dict(state)


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest


# ----------------------------------------------------------------------------------------- random


def _random(network: Network, seed: int) -> Loaded:
    images = samples(network, CALIBRATION_IMAGES, CALIBRATION_SEED).pixels
    normalised = (torch.from_numpy(images) / 255 - torch.tensor(network.mean)) / torch.tensor(
        network.std
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        module = network.build().eval()
        calibrate(module, normalised.permute(0, 3, 1, 2).contiguous())
    digest = state_sha256(module.state_dict())
    return Loaded(module, pb.Weights(source="random", sha256=digest), network.preprocessing)


def calibrate(module: nn.Module, images: Tensor) -> None:
    """He's initialisation, then each layer set to its statistics on these images, N×C×H×W."""
    outputs: list[tuple[nn.Module, Tensor]] = []  # of layers with weights, as they ran

    def measure(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        norm.get_buffer("running_mean").copy_(inputs[0].mean((0, 2, 3)))
        norm.get_buffer("running_var").copy_(inputs[0].var((0, 2, 3), correction=0))

    def scale(layer: nn.Module, _: Any, output: Tensor) -> Tensor:
        spread = output.std()
        layer.get_parameter("weight").div_(spread)
        outputs.append((layer, output / spread))
        return outputs[-1][1]

    hooks = []
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, std=math.sqrt(2 / layer.weight[0].numel()))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            hooks.append(layer.register_forward_hook(scale))
        elif isinstance(layer, nn.BatchNorm2d):
            hooks.append(layer.register_forward_pre_hook(measure))
    logits = module(images)
    for hook in hooks:
        hook.remove()
    last, output = outputs[-1]
    if output is logits:  # a layer that can be centred, not LeNet-5's distances to fixed codes
        _centre(last, logits)


def _centre(last: nn.Module, logits: Tensor) -> None:
    """What all pictures have in common goes, what tells them apart is spread: N×K logits."""
    centred = logits - logits.mean(0)
    factor = LOGIT_SPREAD / centred.std()
    last.get_parameter("weight").mul_(factor)
    last.get_parameter("bias").copy_(-factor * logits.mean(0))


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Of names, types, shapes and numbers, for weights that never were a file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
