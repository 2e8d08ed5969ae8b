"""The formats of a file of labels. What it is decides its content; of tables, also its suffix.

Read: a label per line; CSV and TSV, with or without a header; JSON objects from name to index
(class_to_idx of torchvision's ImageFolder, class_indices of Keras) or from index to name
(TorchServe's index_to_name.json, Keras' imagenet_class_index.json), and JSON lists of names or of
objects with a name and, optionally, an id and a threshold.
Anything else is refused by its kind, since its lines would pass for labels.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.errors import LabelsError

# A label such as "[background]" is none; neither is a file that is cut off.
JSON_START = re.compile(r"\s*[\[{]\s*(?:[\"'\[\]{}\d]|$)", re.MULTILINE)
NUMBERED_LINE = re.compile(r"\d+\s*[:=.)]?\s+\S")
WORDNET_ID = re.compile(r"n\d{8}")
FOREIGN_BYTES = {
    b"PK\x03\x04": "a zip file, as spreadsheets are",
    b"\x80": "a pickle",
    b"\x93NUMPY": "a NumPy array",
    b"\x1f\x8b": "compressed with gzip",
}
FOREIGN_TEXTS = {
    r"\s*<": "HTML or XML",
    r"\s*item\s*\{": "a label map of TensorFlow's object detection (.pbtxt)",
    r"(?:---\s*\n|[\w-]+:\s*\n\s+[-\d])": "YAML",
}
REMEDY = (
    "save one label per line, in the order of the network's outputs; CSV or TSV with a header such "
    "as index,name; or JSON such as class_to_idx of ImageFolder"
)

# The words that headers have for each column, in lower case; pandas leaves that of the index empty.
COLUMNS = {
    "index": ("", "index", "idx", "class_index", "class_idx", "class_id"),
    "name": ("name", "label", "labels", "class", "class_name", "classes"),
    "id": ("id", "synset", "wnid", "wordnet_id"),
    "threshold": ("threshold",),
}
COLUMN_OF = {word: column for column, words in COLUMNS.items() for word in words}


@dataclass(frozen=True)
class Entry:
    """A label as the file has it."""

    place: str  # as messages name it: "on line 3"
    name: str
    id: str = ""
    index: int | None = None  # of the network's output; None: the order says it
    threshold: float | None = None  # from which score on the class is answered


def read_entries(path: Path) -> Iterator[Entry]:
    """
    Raises:
        LabelsError: the file cannot be read, or is in none of these formats.
    """
    text = _read_text(path)
    if path.suffix.lower() == ".json" or JSON_START.match(text):
        return _json_entries(path, text)
    for pattern, kind in FOREIGN_TEXTS.items():
        if re.match(pattern, text):
            raise LabelsError(f"{path} is {kind}: {REMEDY}.")
    if path.suffix.lower() == ".csv":
        return _table_entries(path, _rows(path, text))
    lines = text.removesuffix("\n").split("\n")
    rows = [(number, line.split("\t")) for number, line in enumerate(lines, start=1)]
    if "\t" in text:
        return _table_entries(path, rows)
    if len(lines) > 1 and all(NUMBERED_LINE.match(line) for line in lines):
        raise LabelsError(
            f"{path} has a number before each label, as in {lines[0]!r}: remove the numbers, or "
            "put a tab in place of what follows them."
        )
    return (Entry(f"on line {number}", line.strip()) for number, (line,) in rows)


def _read_text(path: Path) -> str:
    """Without a byte order mark, and with "\\n" for any line ending."""
    try:
        content = path.read_bytes()
        for start, kind in FOREIGN_BYTES.items():
            if content.startswith(start):
                raise LabelsError(f"{path} is {kind}: {REMEDY}.")
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise LabelsError(f"Cannot read the labels in {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise LabelsError(
            f"{path} is not UTF-8: line {line} has the byte 0x{error.object[error.start]:02x}; "
            "save it as UTF-8."
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


# ------------------------------------------------------------------------------------------ tables

Rows = Sequence[tuple[int, list[str]]]  # the number of the line and its cells


def _rows(path: Path, text: str) -> Rows:
    first = text.partition("\n")[0]
    separator = ";" if ";" in first and "," not in first else ","  # ";" where "," is decimal
    reader = csv.reader(text.removesuffix("\n").split("\n"), delimiter=separator, strict=True)
    try:
        return [(reader.line_num, row or [""]) for row in reader]
    except csv.Error as error:
        raise LabelsError(f"{path} is not valid CSV: {error} on line {reader.line_num}.") from error


def _table_entries(path: Path, rows: Rows) -> Iterator[Entry]:
    rows = [(number, [cell.strip() for cell in cells]) for number, cells in rows]
    header = [cell.lower() for cell in rows[0][1]]
    if any(COLUMN_OF.get(word) == "name" for word in header):
        columns, rows = _named_columns(path, header), rows[1:]
    else:
        columns = _guessed_columns(path, [cells for _, cells in rows])
    for number, cells in rows:
        place = f"on line {number}"
        if len(cells) > len(columns):
            raise LabelsError(
                f"{path} has {len(cells)} cells {place}, and there are {len(columns)} columns: "
                "put a label with a comma between double quotes."
            )
        entry = dict(zip(columns, cells, strict=False))
        index = _parse_index(path, entry["index"], place) if "index" in entry else None
        threshold = entry.get("threshold") or None  # an empty cell is none
        least = None if threshold is None else _parse_threshold(path, threshold, place)
        yield Entry(place, entry.get("name", ""), entry.get("id", ""), index, least)


def _named_columns(path: Path, header: list[str]) -> list[str]:
    columns = []
    for word in header:
        column = COLUMN_OF.get(word)
        if column is None or column in columns:
            fault = "an unknown column" if column is None else "a second column for the same,"
            raise LabelsError(
                f"{path} has {fault} {word!r}: a table of labels has the columns name and, "
                "optionally, index, id and threshold."
            )
        columns.append(column)
    return columns


def _guessed_columns(path: Path, rows: list[list[str]]) -> list[str]:
    """The columns of a table without a header: [index] name [id], or [index] synset name."""
    width = max(map(len, rows))
    indexed = width > 1 and {row[0] for row in rows} == {str(index) for index in range(len(rows))}
    rest = [row[indexed:] for row in rows]
    if width - indexed == 2 and all(row and WORDNET_ID.fullmatch(row[0]) for row in rest):
        columns = ["id", "name"]
    elif width - indexed <= 2:
        columns = ["name", "id"][: width - indexed]
    else:
        raise LabelsError(
            f"{path} has {width} columns and no header: begin it with a line that names them, such "
            "as index,id,name, and keep no others."
        )
    return ["index", *columns] if indexed else columns


def _parse_index(path: Path, text: str, place: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise LabelsError(f"{path} has the index {text!r} {place}: it must be a number from 0.")
    return int(text)


def _parse_threshold(path: Path, value: Any, place: str) -> float:
    try:
        threshold = float(value)
    except (TypeError, ValueError):
        threshold = math.nan
    if isinstance(value, bool) or not 0 <= threshold <= 1:
        raise LabelsError(
            f"{path} has the threshold {value!r} {place}: it must be a score from 0 to 1."
        )
    return threshold


# ------------------------------------------------------------------------------------------ JSON


def _json_entries(path: Path, text: str) -> Iterator[Entry]:
    try:
        content = json.loads(text, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise LabelsError(f"{path} is not valid JSON: {error}; {REMEDY}.") from error
    if isinstance(content, list):
        content = {str(index): name for index, name in enumerate(content)}
    if not isinstance(content, dict) or not content:
        raise LabelsError(f"{path} is JSON without labels: {REMEDY}.")
    for key, value in content.items():
        yield _json_entry(path, key, value)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {key!r} is there twice")
        content[key] = value
    return content


def _json_entry(path: Path, key: str, value: Any) -> Entry:
    if isinstance(value, int) and not isinstance(value, bool):  # ImageFolder
        return Entry(f"at index {value}", key.strip(), index=value)
    place = f"at index {key}"
    match value:
        case str(name) if key.isdecimal():  # TorchServe
            return Entry(place, name.strip(), index=_parse_index(path, key, place))
        case [str(id_), str(name)] if key.isdecimal():  # Keras, and TorchServe for ImageNet
            return Entry(place, name.strip(), id_.strip(), _parse_index(path, key, place))
        case {"name": str(name), **rest} if key.isdecimal() and rest.keys() <= {"id", "threshold"}:
            threshold = rest.get("threshold")
            if threshold is not None:
                threshold = _parse_threshold(path, threshold, place)
            index = _parse_index(path, key, place)
            return Entry(place, name.strip(), str(rest.get("id", "")).strip(), index, threshold)
    raise LabelsError(
        f"{path} is JSON, but no labels: its key {key!r} has {json.dumps(value)[:40]}; expected "
        'are {"name": index}, {"index": "name"}, {"index": ["id", "name"]}, a list of names, or a '
        'list of {"name": "...", "id": "...", "threshold": 0.5}.'
    )
