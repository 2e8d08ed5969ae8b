"""Seeded random weights, by data-dependent initialisation.

A deep network with plain random weights answers every picture alike, and no test through it would
mean anything. So each layer, in the order in which the images reach it, is scaled by its own
statistics on a fixed set of images, and the logits are centred and spread; activations neither die
nor overflow in fp16.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from export.catalog import Network
from export.samples.images import CALIBRATION_SEED, samples

INITIALISATION_IMAGES = 16
# Standard deviation of random logits. Wide enough that two pictures' answers differ by more than
# two runtimes may; wider, and fp16's rounding grows with it.
LOGIT_SPREAD = 4.0
LOGIT_STEPS = 12  # until the logits of Network in Network are centred and spread


def random_network(network: Network, seed: int) -> nn.Module:
    """The network with random weights: the same for the same seed, everywhere."""
    images = samples(network, INITIALISATION_IMAGES, CALIBRATION_SEED).pixels
    normalised = (torch.from_numpy(images) / 255 - torch.tensor(network.mean)) / torch.tensor(
        network.std
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        module = network.build().eval()
        initialise(module, normalised.permute(0, 3, 1, 2).contiguous())
    return module


def initialise(module: nn.Module, images: Tensor) -> None:
    """He's initialisation, then each layer scaled by its statistics on these images, N×C×H×W."""
    outputs: list[tuple[nn.Module, Tensor]] = []  # of the layers with weights, in running order

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
            # A ReLU's input is then mostly above 0. With half of it cut off in each layer, a deep
            # network without shortcuts magnifies rounding until fp16 answers differently.
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
    # Otherwise, as in LeNet-5, logits are distances to fixed codes, which no weight spreads.


def _spread_logits(last: nn.Module, logits: Tensor) -> None:
    """Removes what all pictures' logits (N×K) have in common, and spreads their differences."""
    common = logits.mean(0)
    factor = LOGIT_SPREAD / (logits - common).std()
    weight, bias = last.get_parameter("weight"), last.get_parameter("bias")
    weight.mul_(factor)
    bias.copy_(factor * (bias - (common - common.mean())))


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Hash of names, types, shapes and numbers, for weights that never were a file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
