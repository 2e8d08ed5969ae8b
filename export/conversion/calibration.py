"""The pictures on which int8 is calibrated, preprocessed as they are when the network is served.

An int8 network needs the range of each of its tensors in advance. The ranges are measured on
pictures like those that will be served; noise has other ranges, so a build without pictures fails.
The gateway's own code preprocesses them (gateway_preprocessing.py).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convoy.v1 import classifier_pb2 as pb
from export.errors import CalibrationError
from export.progress import SILENT, Reporter
from export.samples.folders import SUFFIXES, list_pictures, spread
from export.samples.gateway_preprocessing import prepare
from export.samples.images import Pixels

MAX_PICTURES = 512  # more of them hardly change the measured ranges
BATCH = 32  # pictures per process: bounds the memory, and lets the progress bar move
REMEDY = "give --calibration DIR with a few hundred pictures like those that will be served."


@dataclass(frozen=True)
class CalibrationImages:
    names: tuple[str, ...]  # paths below the folder
    pixels: Pixels  # N×H×W×C
    facts: pb.Calibration  # for the manifest
    skipped: tuple[str, ...]  # those that the gateway rejects


def calibration_images(
    folder: Path | None, preprocessing: pb.Preprocessing, reporter: Reporter = SILENT
) -> CalibrationImages:
    """Returns the folder's pictures, preprocessed as the gateway does it.

    Raises:
        CalibrationError: the folder has no pictures, or the gateway rejects all of them.
    """
    files = list(_choose(folder).items())
    kept: list[tuple[str, Pixels]] = []
    skipped: list[str] = []
    digest = hashlib.sha256()
    for start in range(0, len(files), BATCH):
        batch = [(name, _read(path)) for name, path in files[start : start + BATCH]]
        images = prepare([content for _, content in batch], preprocessing)
        for (name, content), image in zip(batch, images, strict=True):
            if image is None:
                skipped.append(name)
            else:
                kept.append((name, image))
                digest.update(content)
        reporter.progress("pictures", start + len(batch), len(files))
    if not kept:
        raise CalibrationError(
            f"The gateway rejects all {len(files)} pictures in {folder}, such as {skipped[0]}: "
            f"{REMEDY}"
        )
    names, pixels = zip(*kept, strict=True)
    facts = pb.Calibration(images=len(kept), sha256=digest.hexdigest())
    return CalibrationImages(names, np.stack(pixels), facts, tuple(skipped))


def calibration_sha256(folder: Path | None) -> str:
    """Returns the sha256 of the pictures on which int8 would be calibrated, not preprocessed.

    Raises:
        CalibrationError: the folder has no pictures.
    """
    digest = hashlib.sha256()
    for path in _choose(folder).values():
        digest.update(hashlib.sha256(_read(path)).digest())
    return digest.hexdigest()


def _choose(folder: Path | None) -> dict[str, Path]:
    """Returns at most MAX_PICTURES of the folder and its subfolders, by relative path, sorted.

    They are spread evenly, because data sets are sorted by class, and each class must count.
    """
    if folder is None:
        raise CalibrationError(f"int8 needs pictures for its calibration: {REMEDY}")
    if not folder.is_dir():
        raise CalibrationError(f"There is no folder {folder} for the calibration: {REMEDY}")
    pictures = list_pictures(folder)
    if not pictures:
        raise CalibrationError(f"{folder} has no pictures ({', '.join(SUFFIXES)}): {REMEDY}")
    return spread(pictures, MAX_PICTURES)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CalibrationError(f"{path} cannot be read ({error.strerror}): {REMEDY}") from error
