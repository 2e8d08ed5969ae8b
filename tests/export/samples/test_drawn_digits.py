import io
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from export.samples.digits import data_set, random_fifth, stroke
from export.samples.drawn_digits import drawn_digits, ink_on_sheet, light_on_sheet

Drawn = list[tuple[bytes, int]]


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    return list(drawn_digits())


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)), dtype=np.float32)


def test_each_held_out_digit_is_drawn_twice(drawn: Drawn) -> None:
    labels = data_set()[1][random_fifth().held_out]
    assert [label for _, label in drawn] == np.repeat(labels, 2).tolist()


def test_pictures_are_large_grey_jpegs_of_many_shapes(drawn: Drawn) -> None:
    sizes = []
    for content, _ in drawn:
        image = Image.open(io.BytesIO(content))
        assert (image.format, image.mode) == ("JPEG", "L")
        sizes.append(image.size)
    assert 200 <= np.min(sizes) < 220
    assert 780 < np.max(sizes) <= 800


def test_ink_is_dark_in_even_pictures_and_light_in_odd_ones(drawn: Drawn) -> None:
    sheets = np.array([np.median(pixels(content)) for content, _ in drawn])
    assert sheets[0::2].mean() > 160
    assert sheets[1::2].mean() < 95
    for content, _ in drawn[:40:2]:
        assert np.quantile(pixels(content), 0.001) < 0.6 * np.median(pixels(content))


def test_digits_lie_wholly_on_the_sheet_at_any_place_and_width() -> None:
    random = np.random.default_rng(0)
    places, widths = [], []
    for row in range(200):
        ink = ink_on_sheet(stroke(data_set()[0][row]), 300, 400, random)
        assert ink.shape == (400, 300)
        rows, columns = np.nonzero(ink > 0.5)
        assert rows.min() > 0
        assert columns.min() > 0
        assert rows.max() < 399
        assert columns.max() < 299
        length = max(np.ptp(rows), np.ptp(columns))
        assert 0.2 * 300 < length < 300
        places.append((np.mean(rows) / 400, np.mean(columns) / 300))
        widths.append(ink.sum() / length**2)
    assert np.std(places, axis=0).min() > 0.1
    assert np.quantile(widths, 0.9) > 2 * np.quantile(widths, 0.1)


def test_light_is_uneven_and_some_margins_lie_in_shadow() -> None:
    random = np.random.default_rng(0)
    lights = [light_on_sheet(120, 100, random) for _ in range(300)]
    assert all(
        light.shape == (100, 120) and light.min() > 0.1 and light.max() <= 1 for light in lights
    )
    assert 0.6 < np.mean([light.min() / light.max() for light in lights]) < 0.8
    steps = [
        max(np.abs(np.diff(light, axis=axis)).max() / light.max() for axis in (0, 1))
        for light in lights
    ]
    assert 0.2 < np.mean(np.array(steps) > 0.1) < 0.4  # three in ten: the shadow's edge


def test_same_seed_gives_the_same_bytes(drawn: Drawn) -> None:
    assert list(islice(drawn_digits(), 6)) == drawn[:6]
    assert next(drawn_digits(seed=7)) != drawn[0]
