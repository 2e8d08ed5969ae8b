"""Two normalisations that families share: across channels, and of pixels for Google's networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class LocalResponseNorm(nn.Module):
    """b = a / (k + alpha * Σ a²) ** beta, the sum over `size` channels around each.

    Krizhevsky, Sutskever, Hinton, 2012, section 3.3. `torch.nn.LocalResponseNorm` and Caffe take
    the mean where the paper writes the sum; here `alpha` is the paper's.

    It computes in float32 at any precision, because squares overflow float16 from 256 on, and the
    result would then silently be 0. The result is no larger than the input and has its type. CPUs
    hide the overflow (ONNX Runtime computes float16 graphs in float32), GPUs do not.
    """

    def __init__(self, size: int, alpha: float, beta: float, k: float) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.alpha * self.size  # torch divides it by the size
        normalised = functional.local_response_norm(x.float(), self.size, alpha, self.beta, self.k)
        return normalised.to(x.dtype)


class TransformInput(nn.Module):
    """Converts ImageNet's normalisation to the one Google trained with: (pixel - 0.5) / 0.5.

    The weights of googlenet and inception_v3 came from TensorFlow, and torchvision wanted one
    normalisation for all its networks; its option `transform_input` undoes it, and is on for the
    published weights (torchvision, models/googlenet.py, `_transform_input`).
    """

    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)  # of ImageNet
        std = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
        self.register_buffer("scale", std / 0.5, persistent=False)  # no keys: as published
        self.register_buffer("shift", (mean - 0.5) / 0.5, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift
