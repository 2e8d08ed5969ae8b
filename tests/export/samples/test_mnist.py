import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from export.catalog import DIGIT_SIZE
from export.samples.mnist import (
    Digits,
    InvalidDigits,
    plane_fields,
    read_digits,
    shipped_rows,
    split,
    stroke,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 28, 28)).astype(np.uint8)
LABELS = np.arange(20, dtype=np.uint8) % 10


def idx(array: np.ndarray, magic: int) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


def write_idx(folder: Path, *, compressed: bool = False) -> Path:
    pack = gzip.compress if compressed else bytes
    suffix = ".gz" if compressed else ""
    (folder / f"train-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(LABELS, 2049)))
    path = folder / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(pack(idx(IMAGES, 2051)))
    return path


@pytest.mark.parametrize("compressed", [False, True])
def test_idx_files_are_read_with_their_labels(tmp_path: Path, compressed: bool) -> None:
    digits = read_digits(write_idx(tmp_path, compressed=compressed))
    assert np.array_equal(digits.images, IMAGES)
    assert digits.labels.tolist() == LABELS.tolist()


def test_npz_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "digits.npz", images=IMAGES, labels=LABELS)
    assert np.array_equal(read_digits(tmp_path / "digits.npz").images, IMAGES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file"),
        (idx(LABELS, 2049), "not an IDX file of unsigned bytes with 3 axes"),
        (idx(IMAGES, 2051)[:-1], r"15,679 bytes for 20 × 28 × 28 pixels"),
        (gzip.compress(idx(IMAGES, 2051))[:-9], "damaged gzip file"),
        (idx(IMAGES[:, :27], 2051), r"not uint8 N×28×28"),
        (idx(IMAGES[:19], 2051), "each of 19 images needs a label"),
    ],
    ids=["empty", "labels", "cut", "cut gzip", "narrow", "one too few"],
)
def test_other_content_is_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    path = write_idx(tmp_path)
    path.write_bytes(content)
    with pytest.raises(InvalidDigits, match=message):
        read_digits(path)


@pytest.mark.parametrize("arrays", [{"images": IMAGES}, {"images": IMAGES, "labels": LABELS + 1}])
def test_npz_of_something_else_is_invalid(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "digits.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(InvalidDigits, match=r"digits\.npz"):
        read_digits(tmp_path / "digits.npz")


def test_shipped_rows_are_four_fifths_of_each_class_in_order() -> None:
    labels = np.random.default_rng(1).integers(0, 10, 12_000)
    images = np.zeros((len(labels), 28, 28), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.arange(len(labels)) // 256, np.arange(len(labels)) % 256
    chosen = shipped_rows(Digits(images, labels))
    rows = chosen.images[:, 0, 0].astype(int) * 256 + chosen.images[:, 0, 1]
    assert rows.max() < 10_000
    assert np.array_equal(labels[rows], chosen.labels)
    assert sorted(chosen.labels.tolist()) == chosen.labels.tolist()
    for label in range(10):
        assert (chosen.labels == label).sum() == int(0.8 * (labels[:10_000] == label).sum())
        assert (np.diff(rows[chosen.labels == label]) > 0).all()


def test_held_out_part_is_a_fifth_of_each_class() -> None:
    labels = np.arange(1000) % 10
    train, held_out = split(labels)
    assert not set(train) & set(held_out)
    assert len(train) + len(held_out) == 1000
    assert np.bincount(labels[held_out]).tolist() == [20] * 10
    assert np.array_equal(held_out, split(labels).held_out)


def one() -> np.ndarray:
    image = np.zeros((28, 28), np.uint8)
    image[4:24, 13:15] = 255
    return image


def test_fields_of_a_digit_are_its_ink_and_the_distance_to_its_middle() -> None:
    plane = np.zeros((DIGIT_SIZE, DIGIT_SIZE), np.float32)
    plane[6:26, 14:18] = 1
    grey, distance = plane_fields(plane)
    assert grey.shape == (64, 64)
    assert grey[32, 32] == pytest.approx(1, abs=0.05)
    assert grey[32, 10] == 0
    assert distance[32].argmin() in (31, 32)
    assert distance[32, 42] - distance[32, 40] == pytest.approx(1, abs=0.01)  # 2 of 64 points


def test_stroke_knows_its_length_and_its_middle() -> None:
    drawn = stroke(one())
    assert drawn.length == pytest.approx(80, abs=4)  # 4 points per pixel
    assert drawn.centre == pytest.approx((60, 60), abs=0.5)
