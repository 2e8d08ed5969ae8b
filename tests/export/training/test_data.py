import numpy as np
import pytest
import torch

from export.samples import mnist
from export.samples.digits import clean, data_set, random_fifth
from export.training import data
from export.training.data import drawn, prepared_fields, training_set

ROWS = random_fifth().train[:6]


def test_drawn_digits_are_the_same_each_time_and_other_than_those_inverted() -> None:
    fields, labels = drawn(ROWS, inverted=False)
    again, _ = drawn(ROWS, inverted=False)
    other, _ = drawn(ROWS, inverted=True)
    assert fields.dtype == torch.uint8
    assert fields.shape[1:] == (2, 64, 64)
    assert set(labels.tolist()) <= set(data_set()[1][ROWS].tolist())
    assert torch.equal(fields, again)
    assert not torch.equal(fields, other)


def test_pictures_that_the_gateway_rejects_are_left_out_with_their_labels() -> None:
    digit = clean(ROWS[:1])[0, 2:30, 2:30, 0]
    pictures = [mnist.png(digit), mnist.png(np.zeros((28, 28), np.uint8)), mnist.png(digit)]
    fields, labels = prepared_fields(pictures, np.array([3, 4, 5]))
    assert len(fields) == 2
    assert labels.tolist() == [3, 5]


@pytest.mark.parametrize(("with_mnist", "drawings"), [(False, True), (True, True), (True, False)])
def test_both_data_sets_and_what_is_no_digit_are_trained_on(
    monkeypatch: pytest.MonkeyPatch, with_mnist: bool, drawings: bool
) -> None:
    monkeypatch.setattr(data, "NONDIGITS", 5)
    monkeypatch.setattr(data, "drawn", lambda rows, inverted: drawn(rows[:3], inverted=inverted))
    labels = np.repeat(np.arange(10), 5)
    images = np.stack([clean(ROWS[:1])[0, 2:30, 2:30, 0]] * len(labels))
    handwritten = mnist.Digits(images, labels) if with_mnist else None
    known = training_set(handwritten, drawings=drawings)
    assert len(known.nondigits) == 5
    assert len(known.fields) == len(known.labels)
    # A fifth of MNIST's is held out.
    assert len(known.labels) == 1437 + (6 if drawings else 0) + (40 if with_mnist else 0)
