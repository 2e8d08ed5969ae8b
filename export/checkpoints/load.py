"""Where a network's weights come from: `--weights imagenet` (download.py fetches), `digits`,
`random`, or a file (state_dicts.py reads and fits).

Weights never become random by silence. Random ones are seeded and calibrated: a deep network with
plain random weights answers every picture alike, and no test through it would mean anything. So
each layer, in the order in which the images reach it, is set to its own statistics on a fixed set
of images, and the logits are centred and spread; activations neither die nor overflow in fp16.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convoy.v1 import classifier_pb2 as pb
from export.catalog import Checkpoint, Network
from export.checkpoints.download import Downloads, fetch, is_published
from export.checkpoints.state_dicts import fitted, read
from export.errors import CheckpointError
from export.files import TRAINED_WEIGHTS, file_sha256
from export.samples.images import CALIBRATION_SEED, samples

CALIBRATION_IMAGES = 16
# Standard deviation of calibrated random logits. Wide enough that two pictures' answers differ by
# more than two runtimes may; wider, and fp16's rounding grows with it.
LOGIT_SPREAD = 4.0
LOGIT_STEPS = 12  # until the logits of Network in Network are centred and spread


@dataclass(frozen=True)
class Loaded:
    """A network with its weights, and what is known of them."""

    network: nn.Module
    weights: pb.Weights
    preprocessing: pb.Preprocessing
    accuracy: tuple[pb.Accuracy, ...] = ()


def load(
    network: Network,
    weights: str,
    seed: int = 0,
    *,
    classes: int | None = None,
    downloads: Downloads | None = None,
) -> Loaded:
    """The network with the weights that `--weights` names.

    `classes` is the number of a user's own labels, where they are not the network's; `downloads`
    says where published weights come from.

    Raises:
        CheckpointError: they cannot be had, or do not fit.
    """
    own = len(network.labels())
    classes = own if classes is None else classes
    published = is_published(weights)
    if classes != own and (published or weights in ("digits", "random")):
        raise CheckpointError(
            f"The {weights} weights of {network.name} answer its own {own} classes, and there are "
            f"{classes} labels: give the --weights FILE that was trained for them."
        )
    if published:
        return _file(network, fetch(_chosen(network, weights), downloads or Downloads()), classes)
    match weights:
        case "random":
            return _random(network, seed)
        case "digits":
            return _digits(network, classes)
        case _:
            return _file(network, Path(weights), classes)


# -------------------------------------------------------------------------------------- published


def _chosen(network: Network, weights: str) -> Checkpoint:
    """The checkpoint that was asked for; of "imagenet", the first."""
    for checkpoint in network.checkpoints:
        if weights in ("imagenet", checkpoint.source):
            return checkpoint
    if sources := [checkpoint.source for checkpoint in network.checkpoints]:
        raise CheckpointError(
            f"No {weights} weights of {network.name} are published: give --weights "
            f"{' or '.join(sources)}, FILE or random."
        )
    trained = (
        "--weights digits, which export/train.py trained, " if network.weights == "digits" else ""
    )
    raise CheckpointError(
        f"No weights of {network.name} are published: give {trained}--weights FILE with your own, "
        "or --weights random for seeded weights that mean nothing."
    )


def _published(network: Network, sha256: str) -> Checkpoint | None:
    """The published checkpoint that a file is, known by its content and whatever its name."""
    matching = (file for file in network.checkpoints if sha256.startswith(file.sha256_prefix))
    return next(matching, None)


# ------------------------------------------------------------------------------------------ files


def _digits(network: Network, classes: int) -> Loaded:
    path = TRAINED_WEIGHTS / f"{network.name}.pth"
    if network.weights != "digits":
        raise CheckpointError(
            f"{network.name} is not trained on digits: give --weights imagenet, random or FILE."
        )
    if not path.exists():
        raise CheckpointError(
            f"There is no {path}: run `python export/train.py {network.name}`, "
            "or give --weights random."
        )
    loaded = _file(network, path, classes)
    facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    if facts["sha256"] != loaded.weights.sha256:
        raise CheckpointError(
            f"{path} is not the file that {path.stem}.json measured: "
            f"run `python export/train.py {network.name}` again."
        )
    weights = pb.Weights(source="digits", sha256=loaded.weights.sha256, file=path.name)
    accuracy = tuple(pb.Accuracy(**entry) for entry in facts["accuracy"])
    return Loaded(loaded.network, weights, network.preprocessing, accuracy)


def _file(network: Network, path: Path, classes: int) -> Loaded:
    if not path.is_file():
        raise CheckpointError(
            f"There is no file {path}: --weights takes imagenet, imagenet1k_v1, digits, random, "
            "or the path of a .pth or .safetensors."
        )
    module = fitted(network, read(path), path, classes)
    sha256 = file_sha256(path)
    published = _published(network, sha256)
    return Loaded(
        module.eval(),
        pb.Weights(source=published.source if published else "file", sha256=sha256, file=path.name),
        published.preprocessing if published else network.preprocessing,
    )


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
            # Most of what a ReLU gets is then above 0. With half of it cut off in each layer, a
            # deep network without shortcuts magnifies rounding until fp16 answers differently.
            layer.bias.copy_(layer.weight)
            hooks.append(layer.register_forward_pre_hook(measure))
    logits = module(images)
    for hook in hooks:
        hook.remove()
    last, output = outputs[-1]
    if output is logits:
        _spread_logits(last, logits)
    elif isinstance(last, nn.Conv2d):  # logits are means of its maps after a ReLU: step by step
        for _ in range(LOGIT_STEPS):
            _spread_logits(last, module(images))
    # Else, as in LeNet-5, logits are distances to fixed codes, which no weight spreads.


def _spread_logits(last: nn.Module, logits: Tensor) -> None:
    """What all pictures have in common goes, what tells them apart is spread: N×K logits."""
    common = logits.mean(0)
    factor = LOGIT_SPREAD / (logits - common).std()
    weight, bias = last.get_parameter("weight"), last.get_parameter("bias")
    weight.mul_(factor)
    bias.copy_(factor * (bias - (common - common.mean())))


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Of names, types, shapes and numbers, for weights that never were a file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
