"""A user's own classes, from a file as it is: one label per line, a table, or JSON.

    flowers.txt                 labels.csv or .tsv      class_to_idx.json, index_to_name.json
    daisy                       index,id,name           {"daisy": 0, "dandelion": 1}
    dandelion<TAB>n11939491     0,n11939491,daisy       {"0": "daisy", "1": ["n11939491", "daisy"]}

Lines and lists are in the order of the network's outputs; an index says so itself. An id is what
identifies the class elsewhere, such as an ImageNet synset. Tables with a header and JSON lists of
objects may give a label a threshold, from which score on it is answered. label_files.py reads the
formats.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from convoy.v1 import classifier_pb2 as pb
from export.checkpoints.label_files import Entry, read_entries
from export.errors import LabelsError

# Those that move a terminal's cursor, end a line, or change the direction of writing.
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def read_labels(path: Path) -> list[pb.Label]:
    """The labels of the file, in the order of the network's outputs.

    Raises:
        LabelsError: it cannot be read, is of a kind that holds no labels, or a label is blank, has
            a control character, repeats another or has an index that is not its own.
    """
    entries = list(read_entries(path))
    _check_names(path, entries)
    if any(entry.index is not None for entry in entries):
        entries = _in_order(path, entries)
    return [pb.Label(name=entry.name, id=entry.id, threshold=entry.threshold) for entry in entries]


def _check_names(path: Path, entries: Iterable[Entry]) -> None:
    places: dict[str, str] = {}  # where each name is
    for entry in entries:
        if not entry.name:
            raise LabelsError(f"{path} has no label {entry.place}: each must have one.")
        if control := CONTROL_CHARACTERS.search(entry.name + entry.id):
            raise LabelsError(
                f"{path} has the control character {control[0]!a} {entry.place}: remove it."
            )
        if entry.name in places:
            raise LabelsError(
                f"{path} has {entry.name!r} {places[entry.name]} and {entry.place}: "
                "labels must differ."
            )
        places[entry.name] = entry.place


def _in_order(path: Path, entries: list[Entry]) -> list[Entry]:
    by_index: dict[int, Entry] = {}
    for entry in entries:
        if entry.index is None:
            raise LabelsError(f"{path} has no index {entry.place}: give each label one, or none.")
        if other := by_index.get(entry.index):
            raise LabelsError(
                f"{path} has the index {entry.index} of both {other.name!r} and {entry.name!r}: "
                "indices must differ."
            )
        by_index[entry.index] = entry
    for index in range(len(entries)):
        if index not in by_index:
            raise LabelsError(
                f"{path} has no index {index}: its {len(entries)} labels must have the indices 0 "
                f"to {len(entries) - 1}, those of the network's outputs."
            )
    return [by_index[index] for index in range(len(entries))]
