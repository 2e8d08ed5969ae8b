import numpy as np
import pytest
import torch

from export.samples import mnist
from export.samples.digits import clean, random_fifth
from export.training import measure
from export.training.measure import (
    Accepted,
    accept,
    calibration_error,
    held_out,
    measure_unfamiliar,
)


def test_calibration_error_is_the_gap_between_scores_and_right_answers() -> None:
    scores = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    labels = np.array([0, 0, 1, 0])  # right: both of 0.9, one of 0.6
    assert calibration_error(scores.log(), labels) == pytest.approx(0.5 * 0.1 + 0.5 * 0.1)


def test_rejected_pictures_count_in_the_total_alone() -> None:
    digit = mnist.png(clean(random_fifth().held_out[:1])[0, 2:30, 2:30, 0])
    accepted = accept([digit, mnist.png(np.zeros((28, 28), np.uint8))], np.array([7, 8]))
    assert accepted.pixels.shape == (1, 32, 32, 1)
    assert (accepted.labels.tolist(), accepted.total) == ([7], 2)


def test_held_out_digits_are_measured_as_they_are_and_drawn() -> None:
    labels = np.repeat(np.arange(10), 5)
    images = np.stack([clean(random_fifth().held_out[:1])[0, 2:30, 2:30, 0]] * len(labels))
    pictures = held_out(mnist.Digits(images, labels))
    halves = [pictures.tempering, pictures.plain]
    assert [half.total for half in halves] == [5, 5]
    assert sorted(label for half in halves for label in half.labels.tolist()) == list(range(10))
    assert pictures.drawn.total == 5
    assert set(pictures.drawn.labels.tolist()) <= set(pictures.plain.labels.tolist())
    again = held_out(mnist.Digits(images, labels))
    assert np.array_equal(pictures.drawn.pixels, again.drawn.pixels)


def test_threshold_doubts_a_hundredth_and_rejected_pictures_are_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Brightness(torch.nn.Module):
        """As unfamiliar as a picture is bright."""

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.mean((2, 3))

        def unfamiliar(self, logits: torch.Tensor) -> torch.Tensor:
            return logits

    def flat(levels: range) -> np.ndarray:
        return np.stack([np.full((32, 32, 1), level, np.uint8) for level in levels])

    none = np.array([], int)
    kinds = {
        "dark": Accepted(flat(range(0, 50)), none, 60),  # 10 were rejected
        "bright": Accepted(flat(range(205, 255)), none, 50),
        "ambiguous letters": Accepted(flat(range(205, 255)), none, 50),
    }
    monkeypatch.setattr(measure, "nondigits", lambda: kinds)
    facts = measure_unfamiliar(Brightness(), [flat(range(100)), flat(range(100, 200))])
    assert facts["caught"]["dark"] == {"caught": 10, "total": 60, "rejected": 10}
    assert facts["caught"]["bright"] == {"caught": 50, "total": 50, "rejected": 0}
    assert facts["curve"]["0.01"] == pytest.approx(60 / 110, abs=1e-4)  # without the ambiguous
