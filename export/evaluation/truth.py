"""Labelled pictures: a folder per label, as torchvision's ImageFolder has them, or a table.

    photos/                     truth.csv
      daisy/1.jpg               path,label
      daisy/2.jpg               shots/1.jpg,daisy
      tulip/more/3.jpg          shots/2.jpg,tulip

Neither is ever held as a whole. Their order is the same each time, so that an evaluation can
continue where another one stopped.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from convoy.v1 import classifier_pb2 as pb
from export.errors import EvaluationError
from export.files import file_sha256

COLUMNS = {"path", "label"}
MAX_FILE_BYTES = 64 << 20  # four times what a gateway accepts unless it is told otherwise


class Labelled(NamedTuple):
    name: str  # its path, as the table has it or below the folder
    path: Path
    label: str


class Truth:
    """Iterates over labelled pictures, any number of times.

    Raises (when iterating):
        EvaluationError: the folder cannot be read, or the table is not one of paths and labels.
    """

    def __init__(self, source: Path) -> None:
        self.source = source

    def __iter__(self) -> Iterator[Labelled]:
        return _folder(self.source) if self.source.is_dir() else _table(self.source)


def truth_sha256(source: Path) -> str:
    """Hash of the pictures and their labels.

    Raises:
        EvaluationError: there are none, or a file cannot be read.
    """
    digest, item = hashlib.sha256(), None
    for item in Truth(source):
        try:
            content = file_sha256(item.path) if item.path.is_file() else ""
        except OSError as error:
            raise EvaluationError(f"{item.path} cannot be read: {error.strerror}.") from error
        digest.update(os.fsencode(f"{item.name}\0{item.label}\0{content}\n"))
    if item is None:
        raise EvaluationError(f"{source} has no pictures: see docs/evaluating.md for its form.")
    return digest.hexdigest()


def read_picture(path: Path) -> bytes:
    """The content of the file, unless it could not be a picture, such as a pipe.

    Raises:
        OSError: it could not be one, or cannot be read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a file")
    if status.st_size > MAX_FILE_BYTES:
        raise OSError(f"{status.st_size >> 20} MiB, of at most {MAX_FILE_BYTES >> 20}")
    return path.read_bytes()


# ------------------------------------------------------------------------------ the two forms


def _folder(source: Path) -> Iterator[Labelled]:
    """What is hidden is left out, such as .DS_Store; so are files beside the folders of labels."""
    try:
        labels = sorted(entry.name for entry in os.scandir(source) if entry.is_dir())
    except OSError as error:
        _cannot_read(error)
    for label in labels:
        if not label.startswith("."):
            yield from (
                Labelled(path.relative_to(source).as_posix(), path, label)
                for path in _files(source / label)
            )


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, onerror=_cannot_read):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def _cannot_read(error: OSError) -> NoReturn:
    raise EvaluationError(f"{error.filename} cannot be read: {error.strerror}.") from error


def _table(source: Path) -> Iterator[Labelled]:
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            yield from _rows(source, file)
    except OSError as error:
        raise EvaluationError(
            f"{source} cannot be read: {error.strerror}; expected is a folder that has one per "
            "label, or a CSV file with the columns path and label."
        ) from error
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{source} is not a UTF-8 CSV file of path,label.") from error
    except csv.Error as error:
        raise EvaluationError(f"{source} is not valid CSV: {error}.") from error


def _rows(source: Path, file: Iterator[str]) -> Iterator[Labelled]:
    reader = csv.reader(file, strict=True)
    columns = [cell.strip() for cell in next(reader, [])]
    _check_columns(source, columns)
    path, label = columns.index("path"), columns.index("label")
    for cells in reader:
        if not cells:
            continue
        if len(cells) != len(columns) or not cells[path]:
            raise EvaluationError(
                f"{source} has {cells} on line {reader.line_num}: expected are a path and a label; "
                "put what has a comma between double quotes."
            )
        yield Labelled(cells[path], source.parent / cells[path], cells[label].strip())


def _check_columns(source: Path, columns: list[str]) -> None:
    if unknown := sorted(set(columns) - COLUMNS):
        raise EvaluationError(
            f"{source} begins with the unknown column {', '.join(map(repr, unknown))}: its first "
            "line must be path,label."
        )
    if len(columns) != len(COLUMNS) or set(columns) != COLUMNS:
        raise EvaluationError(f"{source} must begin with the line path,label.")


# ------------------------------------------------------------------------------ labels


class Classes:
    """The classes of a network, by their names and ids."""

    def __init__(self, labels: Sequence[pb.Label]) -> None:
        self._indices: defaultdict[str, set[int]] = defaultdict(set)
        for index, label in enumerate(labels):
            for text in filter(None, (label.name, label.id)):
                self._indices[text].add(index)

    def find(self, label: str) -> int | None:
        """The row of the network's output; None if there is none, or more than one."""
        indices = self._indices.get(label, set())
        return next(iter(indices)) if len(indices) == 1 else None

    def explain(self, label: str) -> str:
        """Why `find` has nothing."""
        if label in self._indices:
            return f"{len(self._indices[label])} classes are called {label!r}: use their ids"
        nearest = difflib.get_close_matches(label, self._indices, n=1) or [*self._indices][:1]
        return f"no class is called {label!r}; there is {nearest[0]!r}"
