"""The initial weights of networks that are trained here. A checkpoint overwrites them."""

from __future__ import annotations

from torch import nn


def he_normal(module: nn.Module) -> None:
    """For `network.apply`: ReLU halves the mean square of a signal, so convolutions double it.

    He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", 2015, arXiv 1502.01852, section 2.2.
    Linear layers keep PyTorch's initialisation.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
