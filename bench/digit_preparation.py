"""Measures the preparation of digits beside that of another checkout, picture by picture in turn.

    PYTHONPATH=. python bench/digit_preparation.py --before /path/to/checkout [--pictures 60]

Sets: export/samples/drawn_digits.py, tests/data/digit-7.png, and digits of 28×28 pixels. Prints the
median CPU time per picture of both, and the wall time where two threads prepare at once.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from bench.checkouts import load

ROOT = Path(__file__).resolve().parents[1]
Prepare = Callable[[Image.Image], object]


def load_server(checkout: Path) -> Prepare:
    """The preparation of a checkout."""
    module, errors = load(checkout, "server.preprocessing", "server.errors")
    from convoy.v1 import classifier_pb2 as pb

    digit = pb.Preprocessing(digit=pb.Digit(size=32, box=20))

    def prepare(image: Image.Image) -> object:
        try:
            return module.prepare(image, digit)
        except errors.ImageUnsuitable:
            return None

    return prepare


def small_digits(count: int) -> list[Image.Image]:
    """Digits of scikit-learn as 28×28, the longer side 20 pixels, as MNIST has them."""
    from export.samples.digits import clean, random_fifth

    return [
        Image.fromarray(plane[2:30, 2:30, 0]) for plane in clean(random_fifth().held_out[:count])
    ]


def opened(file: Path | io.BytesIO) -> Image.Image:
    image = Image.open(file)
    image.load()
    return image


def compare(pictures: Sequence[Image.Image], sides: dict[str, Prepare]) -> dict[str, float]:
    """The median CPU milliseconds of each side, on the same pictures in turn."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for picture in pictures:
        for name, prepare in sides.items():
            before = time.thread_time()
            prepare(picture)
            times[name].append(1000 * (time.thread_time() - before))
    return {name: statistics.median(values) for name, values in times.items()}


def two_threads(pictures: Sequence[Image.Image], prepare: Prepare) -> float:
    """Wall milliseconds per picture of a thread, where two prepare at once."""

    def one(_: int) -> float:
        before = time.perf_counter()
        for picture in pictures:
            prepare(picture)
        return 1000 * (time.perf_counter() - before) / len(pictures)

    with ThreadPoolExecutor(2) as pool:
        return statistics.mean(pool.map(one, range(2)))


def main(
    before: Annotated[Path, typer.Option(help="The other checkout.")],
    pictures: Annotated[int, typer.Option(min=1, help="Pictures of each set.")] = 60,
) -> None:
    """Compare the preparation of digits with that of another checkout."""

    from export.samples.drawn_digits import drawn_digits

    sets = {
        "drawn": [opened(io.BytesIO(content)) for content, _ in islice(drawn_digits(), pictures)],
        "digit-7.png": [opened(ROOT / "tests" / "data" / "digit-7.png")] * pictures,
        "28×28": small_digits(pictures),
    }
    sides = {"before": load_server(before), "now": load_server(ROOT)}
    for prepare in sides.values():
        compare(sets["28×28"][:5], {"": prepare})
    print(f"{'set':12} {'before ms':>10} {'now ms':>8} {'times':>6}   two threads: before, now")
    for name, images in sets.items():
        medians = compare(images, sides)
        walls = [two_threads(images[:30], prepare) for prepare in sides.values()]
        ratio = medians["before"] / medians["now"]
        print(
            f"{name:12} {medians['before']:10.2f} {medians['now']:8.2f} {ratio:6.1f}   "
            f"{walls[0]:.2f} {walls[1]:.2f} ({walls[0] / walls[1]:.1f})"
        )


if __name__ == "__main__":
    typer.run(main)
