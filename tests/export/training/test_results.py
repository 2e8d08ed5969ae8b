import numpy as np
import pytest
import torch

from export.training import results
from export.training.measure import Accepted
from export.training.results import fit_temperature


def test_temperature_is_fitted_to_both_data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = torch.tensor([28, 20, 14, 10, 8, 6, 5, 4, 3, 2])  # of each class, 100 in all
    labels = np.repeat(np.arange(10), counts)
    linear = torch.nn.Linear(1024, 10)
    torch.nn.init.zeros_(linear.weight)
    linear.bias.data = 3 * torch.log(counts / 100)  # right but for a temperature of 3
    network = torch.nn.Sequential(torch.nn.Flatten(), linear)
    pixels = np.zeros((50, 32, 32, 1), np.uint8)
    # Neither half alone has these counts.
    monkeypatch.setattr(results, "prepare_drawn_digits", lambda *_: (pixels, labels[50:], 50))
    assert fit_temperature(network, Accepted(pixels, labels[:50], 50)) == pytest.approx(3, abs=0.01)
