import io

import numpy as np
from PIL import Image

from export.samples import nondigits
from export.samples.nondigits import (
    AMBIGUOUS,
    LETTERS,
    SIGNS,
    measuring_nondigits,
    sign_points,
    smooth,
    training_nondigits,
    two_digits,
)


def block(label: int) -> np.ndarray:
    image = np.zeros((28, 28), np.uint8)
    image[4:24, 10 : 14 + label] = 255
    return image


def test_signs_lie_on_their_grid() -> None:
    for name, strokes in SIGNS.items():
        points = np.concatenate(sign_points(strokes))
        assert points[:, 0].max() <= 5, name
        assert points[:, 1].max() <= 6, name
        assert all(len(stroke) >= 2 for stroke in sign_points(strokes)), name


def test_letters_that_look_like_digits_are_not_trained_on() -> None:
    assert not set(SIGNS) & set(AMBIGUOUS)
    assert not set(LETTERS) & set(AMBIGUOUS)


def test_same_seed_gives_the_same_pictures() -> None:
    digits = np.stack([block(label) for label in range(4)])
    first, second = (training_nondigits(digits, 12, seed=3) for _ in range(2))
    other = training_nondigits(digits, 12, seed=4)
    assert all(np.array_equal(a.grey, b.grey) for a, b in zip(first, second, strict=True))
    assert not all(np.array_equal(a.grey, b.grey) for a, b in zip(first, other, strict=True))


def test_without_digits_there_are_no_pairs() -> None:
    assert len(training_nondigits(np.empty((0, 28, 28), np.uint8), 8, seed=0)) == 8


def test_two_digits_touch() -> None:
    for seed in range(20):
        pair = two_digits(block(2), block(5), np.random.default_rng(seed))
        columns = np.flatnonzero(pair.any(axis=0))
        assert len(columns) == columns[-1] - columns[0] + 1
        assert len(columns) >= 12


def test_smoothing_keeps_the_ends_and_cuts_the_corner() -> None:
    corner = np.array([(0, 0), (10, 0), (10, 10)], float)
    curve = smooth(corner)
    assert curve[0].tolist() == [0, 0]
    assert curve[-1].tolist() == [10, 10]
    assert np.abs(curve - (10, 0)).sum(axis=1).min() > 1


def test_measured_pictures_are_png_files_of_every_kind() -> None:
    kinds = measuring_nondigits()
    assert {"letters", "scribbles", "two digits", "empty sheets"} == set(kinds)
    for pictures in kinds.values():
        assert len(pictures) >= 100
        assert Image.open(io.BytesIO(pictures[0])).format == "PNG"
    assert nondigits.measuring_nondigits() == kinds
