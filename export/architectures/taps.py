"""Where a network's own view of an image can be read: what goes into some of its modules.

An architecture names them in an attribute `taps`; the exported graph then has more outputs than
probabilities (export/conversion/evidence.py). A network without it has none. One that can say how
little an image looks like its classes has a method `unfamiliar(logits, features)` besides: N×K and
N×F to N×1, the higher the less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True)
class Taps:
    # Its input are the features; over positions, their mean.
    last_layer: str = ""
    # The global average pooling, if nothing but the last layer follows it, or if the last layer
    # comes before it and gives a map per class. Its input then shows where the evidence lies.
    average: str = ""
    # By the name of a layer, the module that takes what it puts out.
    layers: Mapping[str, str] = field(default_factory=dict)


NO_TAPS = Taps()


def taps(network: nn.Module) -> Taps:
    declared = getattr(network, "taps", NO_TAPS)
    assert isinstance(declared, Taps)
    return declared
