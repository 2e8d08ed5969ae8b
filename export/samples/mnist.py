"""MNIST: digits that people wrote, as IDX files or as one npz file, and the part held out of them.

LeCun, Cortes and Burges's data of 1998, 28×28 pixels, 0 paper, 255 ink; the longer side of each
digit is 20 pixels, and its centre of mass lies in the middle. The data are shared under
CC BY-SA 3.0. They are not part of this project: export/training/download.py fetches them.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from export.catalog import DIGIT_SIZE
from export.samples.digits import Floats, Stroke, with_fields

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

SIDE = 28  # pixels
# The shipped weights were trained on a part of these rows of the training file.
SHIPPED_ROWS = 10_000
IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049  # IDX: unsigned bytes, of three axes and of one


class InvalidDigits(ValueError):
    """A file is not one of digits; the message says what it is instead."""


class Digits(NamedTuple):
    images: Bytes  # N×28×28
    labels: Integers  # N, 0 to 9


class Split(NamedTuple):
    train: Integers  # rows
    held_out: Integers


def plane_fields(plane: Floats) -> Floats:
    """Returns grey and distance, 2×64×64, of a digit that the gateway has prepared, 32×32 in 0..1.

    They are what `augment` in export/samples/digits.py draws from.
    """
    side = 2 * DIGIT_SIZE
    doubled = Image.fromarray(plane).resize((side, side), Image.Resampling.BICUBIC)
    grey = np.clip(np.asarray(doubled), 0, 1)
    return np.stack([grey, _distance(grey) / 2]).astype(np.float32)


def stroke(image: Bytes) -> Stroke:
    """Returns the fields of one digit, 28×28, to draw it on a sheet with."""
    padded = np.pad(image.astype(np.float32) / 255, 1)
    size = (4 * len(padded), 4 * len(padded))
    fine = np.asarray(Image.fromarray(padded).resize(size, Image.Resampling.BICUBIC))
    grey = np.clip(fine / fine.max(), 0, 1)
    return with_fields(grey, _distance(grey).astype(np.float32))


def _distance(grey: Floats) -> Floats:
    """Of each pixel to the middle of the stroke, in pixels."""
    from scipy.ndimage import distance_transform_edt
    from skimage.morphology import skeletonize

    # scikit-image has no types for it.
    skeleton = skeletonize(grey > 0.45)  # type: ignore[no-untyped-call]
    distance: Floats = distance_transform_edt(~skeleton)
    return distance


def png(image: Bytes) -> bytes:
    """Returns a grey picture, H×W, as a PNG file."""
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "PNG")
    return encoded.getvalue()


def split(labels: Integers) -> Split:
    """A fifth of each class is held out: the rows that scikit-learn picks with random_state 0."""
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(labels))
    return Split(*train_test_split(rows, test_size=0.2, stratify=labels, random_state=0))


def shipped_rows(digits: Digits) -> Digits:
    """The digits of the shipped weights: the first four fifths of each class of 10,000 rows.

    They lie class by class, in the order of the training file.
    """
    labels = digits.labels[:SHIPPED_ROWS]
    rows = [np.flatnonzero(labels == label) for label in range(10)]
    chosen = np.concatenate([each[: math.floor(0.8 * len(each))] for each in rows])
    return Digits(digits.images[chosen], digits.labels[chosen])


def read_digits(path: Path) -> Digits:
    """The digits of an npz file (`images`, `labels`), or of an IDX file of images.

    The labels of an IDX file lie beside it, under MNIST's own name: `labels-idx1` in place of
    `images-idx3`. Either may be compressed with gzip.

    Raises:
        OSError: a file cannot be read.
        InvalidDigits: its content is of another kind.
    """
    if path.suffix == ".npz":
        images, labels = _read_npz(path)
    else:
        beside = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
        images, labels = read_idx(path, IMAGES_MAGIC), read_idx(beside, LABELS_MAGIC)
    if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE) or not len(images):
        raise InvalidDigits(f"{path}: images are {images.dtype} {images.shape}, not uint8 N×28×28")
    if labels.shape != images.shape[:1] or labels.min() < 0 or labels.max() > 9:
        raise InvalidDigits(f"{path}: each of {len(images)} images needs a label from 0 to 9")
    return Digits(images, labels.astype(np.int64))


def _read_npz(path: Path) -> tuple[Bytes, npt.NDArray[np.integer]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["images"], arrays["labels"]
    except (ValueError, KeyError, EOFError) as error:
        raise InvalidDigits(
            f"{path}: not an npz file of `images` and `labels` ({error})"
        ) from error


def read_idx(path: Path, magic: int) -> Bytes:
    """The array of an IDX file: a magic number, the length of each axis, then bytes.

    Raises:
        OSError: the file cannot be read.
        InvalidDigits: it is not an IDX file of that kind, or not whole.
    """
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError) as error:
            raise InvalidDigits(f"{path}: damaged gzip file ({error})") from error
    axes = magic & 0xFF
    header = struct.Struct(f">{1 + axes}I")
    if len(content) < header.size or header.unpack_from(content)[0] != magic:
        raise InvalidDigits(f"{path}: not an IDX file of unsigned bytes with {axes} axes")
    shape = header.unpack_from(content)[1:]
    if len(content) - header.size != math.prod(shape):
        raise InvalidDigits(
            f"{path}: {len(content) - header.size:,} bytes for {' × '.join(map(str, shape))} pixels"
        )
    return np.frombuffer(content, np.uint8, offset=header.size).reshape(shape)
