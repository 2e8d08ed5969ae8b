"""How unfamiliar a picture is to a network that was also trained on what is none of its classes."""

from __future__ import annotations

import torch
from torch import Tensor


class ScoresUnfamiliar:
    """A network whose training had an eleventh score beside its logits: one that no weight moves.

    It is the rubbish class of LeCun 1998, equation 9: the score of "none of these" is fixed, and
    the logits of what is none of the classes learn to stay below it.
    """

    rejection = 0.0  # that score

    def unfamiliar(self, logits: Tensor, features: Tensor | None = None) -> Tensor:
        """The share of "none of these" among the classes, N×1 in 0..1, from logits, N×K."""
        return torch.sigmoid(self.rejection - logits.logsumexp(1, keepdim=True))
