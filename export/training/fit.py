"""Trains a network on digits, and on what is none.

A network has ten classes. What is no digit gets an eleventh score that no weight moves, the
network's `rejection`: LeCun 1998, equation 9, where the distance j of a rubbish class keeps the
other distances large. So the share of that score among all eleven says how unfamiliar a picture is,
and the network has no more parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.samples.digits import augment, network_input
from export.training.data import NONE, TrainingSet, unpack
from export.training.recipes import TrainingRecipe


class Epoch(NamedTuple):
    """A point of the curve: one pass over the training digits."""

    epoch: int  # from 1
    rate: float  # at its end
    loss: float  # mean cross entropy
    error: float  # 0 to 1; on redrawn pictures, in training mode, while the weights change


class Trained(NamedTuple):
    network: nn.Module
    curve: list[Epoch]


def fit(
    build: Callable[[], nn.Module],
    recipe: TrainingRecipe,
    data: TrainingSet,
    seed: int,
    epoch_done: Callable[[Epoch], object] = lambda _: None,
    omitted: Collection[str] = frozenset(),
) -> Trained:
    """Trains a new network, without the `omitted` augmentations; returns it in evaluation mode."""
    torch.set_num_threads(1)  # more add in another order, and are no faster at this size
    torch.manual_seed(seed)  # the initial weights, and dropout
    random = torch.Generator().manual_seed(seed)
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    # torch's types know no memory format for a whole module.
    network = build().to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.rate, recipe.momentum, weight_decay=recipe.weight_decay
    )
    steps = math.ceil(len(data.labels) / recipe.batch)  # per epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: share_of_rate(step / steps, recipe.epochs)
    )
    curve = []
    for epoch in range(1, recipe.epochs + 1):
        loss, wrong, total = 0.0, 0, 0
        for rows in torch.split(torch.randperm(len(data.labels), generator=random), recipe.batch):
            fields, labels = _batch(data, rows, recipe.nondigits, random)
            step = _step(network, optimizer, fields, labels, random, omitted)
            schedule.step()
            loss, wrong, total = loss + step[0], wrong + step[1], total + len(labels)
        rate = float(schedule.get_last_lr()[0])
        curve.append(Epoch(epoch, round(rate, 6), round(loss / total, 4), round(wrong / total, 4)))
        epoch_done(curve[-1])
    network.eval().to(memory_format=torch.contiguous_format)
    return Trained(network, curve)


def temper(network: nn.Module, logits: Tensor, labels: Tensor) -> float:
    """Divides the network's logits by the temperature that maximises the likelihood; returns it.

    Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", 2017, arXiv
    1706.04599, section 4.2. The last layer's weights and bias are divided, in LeNet-5 the scale of
    its distances, so that the graph needs no additional operator; the order of the scores does not
    change. `logits` are those of pictures that were not trained on, N×K, and `labels` theirs.
    """
    candidates = [step / 100 for step in range(25, 401)]
    temperature = min(candidates, key=lambda t: float(functional.cross_entropy(logits / t, labels)))
    with torch.no_grad():
        scale = getattr(network, "scale", None)
        for weight in [scale] if scale is not None else list(network.parameters())[-2:]:
            weight.div_(temperature)
    return temperature


def _batch(
    data: TrainingSet, rows: Tensor, share: float, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Returns the fields and labels of these rows, and of some pictures that are no digit."""
    fields, labels = data.fields[rows], data.labels[rows]
    if len(data.nondigits):
        chosen = torch.randint(len(data.nondigits), (round(share * len(rows)),), generator=random)
        fields = torch.cat([fields, data.nondigits[chosen]])
        labels = torch.cat([labels, torch.full((len(chosen),), NONE)])
    return unpack(fields), labels


def _step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    fields: Tensor,
    labels: Tensor,
    random: torch.Generator,
    omitted: Collection[str],
) -> tuple[float, int]:
    """Makes one step; returns the batch's summed loss, and its number of wrong answers."""
    logits = network(network_input(augment(fields, random, omitted)))
    none = torch.full((len(logits), 1), getattr(network, "rejection", 0.0))
    logits = torch.cat([logits, none], dim=1)
    loss = functional.cross_entropy(logits, labels)
    optimizer.zero_grad()
    # torch has no types for it.
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item() * len(labels), int((logits.argmax(1) != labels).sum())


def share_of_rate(epoch: float, epochs: int) -> float:
    """Returns 0 to 1: linearly up over two epochs, then down to 0 along half a cosine."""
    warmup = min(2.0, epochs / 4)
    if epoch < warmup:
        return epoch / warmup
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))
