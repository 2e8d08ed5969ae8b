"""The pictures that int8 is calibrated on, as the network will see them when it is served.

An int8 network knows beforehand how large each of its tensors becomes, and that is measured on
pictures like those that will be served: noise would measure something else, so nothing is made up
where there are none. They are prepared by the gateway's own code, asked as a process (prepared.py).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convoy.v1 import classifier_pb2 as pb
from export.errors import CalibrationError
from export.progress import SILENT, Reporter
from export.samples.gateway_preprocessing import prepare
from export.samples.images import Pixels

LIMIT = 512  # pictures; more of them hardly change the ranges that are measured
BATCH = 32  # pictures to one process: bounds what is held in memory, and lets a bar move
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
REMEDY = "give --calibration DIR with a few hundred pictures like those that will be served."


@dataclass(frozen=True)
class CalibrationImages:
    names: tuple[str, ...]  # paths below the folder
    pixels: Pixels  # N×H×W×C
    facts: pb.Calibration  # for the manifest
    skipped: tuple[str, ...]  # what the gateway refuses


def calibration_images(
    folder: Path | None, preprocessing: pb.Preprocessing, reporter: Reporter = SILENT
) -> CalibrationImages:
    """The folder's pictures, prepared as the gateway prepares them.

    Raises:
        CalibrationError: there are none, or none can be used.
    """
    files = list(_chosen(folder).items())
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
            f"The gateway refuses all {len(files)} pictures of {folder}, {skipped[0]} among them: "
            f"{REMEDY}"
        )
    names, pixels = zip(*kept, strict=True)
    facts = pb.Calibration(images=len(kept), sha256=digest.hexdigest())
    return CalibrationImages(names, np.stack(pixels), facts, tuple(skipped))


def calibration_sha256(folder: Path | None) -> str:
    """Of the pictures that would be calibrated on, before any is prepared.

    Raises:
        CalibrationError: there are none.
    """
    digest = hashlib.sha256()
    for path in _chosen(folder).values():
        digest.update(hashlib.sha256(_read(path)).digest())
    return digest.hexdigest()


def _chosen(folder: Path | None) -> dict[str, Path]:
    """At most LIMIT pictures of the folder and the folders in it, by their paths below it, sorted.

    They are spread evenly over all: data sets lie class by class, and each class shall count.
    """
    if folder is None:
        raise CalibrationError(f"int8 is calibrated on pictures: {REMEDY}")
    if not folder.is_dir():
        raise CalibrationError(f"There is no folder {folder} to calibrate on: {REMEDY}")
    found = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    }
    if not found:
        raise CalibrationError(f"{folder} has no pictures ({', '.join(SUFFIXES)}): {REMEDY}")
    names = sorted(found)
    count = min(len(names), LIMIT)
    return {name: found[name] for name in (names[n * len(names) // count] for n in range(count))}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CalibrationError(f"{path} cannot be read ({error.strerror}): {REMEDY}") from error
