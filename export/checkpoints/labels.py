"""A user's own classes: a file with one label a line, in the order of the network's outputs.

    daisy
    dandelion<TAB>n11939491

After a tab, optionally, what identifies the class elsewhere, such as an ImageNet synset.
"""

from __future__ import annotations

import re
from pathlib import Path

from convoy.v1 import classifier_pb2 as pb
from export.errors import LabelsError

# Those that move a terminal's cursor, end a line, or change the direction of writing.
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def read_labels(path: Path) -> list[pb.Label]:
    """The labels of the file.

    Raises:
        LabelsError: it cannot be read, or a line is blank, has several tabs or a control
            character, or repeats another.
    """
    labels: list[pb.Label] = []
    lines: dict[str, int] = {}  # the number of each name's line, from 1
    for number, line in enumerate(_lines(path), start=1):
        name, *ids = (part.strip() for part in line.split("\t"))
        if not name:
            raise LabelsError(f"{path} has no label on line {number}: each line must have one.")
        if len(ids) > 1:
            raise LabelsError(
                f"{path} has {len(ids)} tabs on line {number}: "
                "write a label, or a label, one tab and its id."
            )
        if control := CONTROL_CHARACTERS.search(name + "".join(ids)):
            raise LabelsError(
                f"{path} has the control character {control[0]!a} on line {number}: remove it."
            )
        if name in lines:
            raise LabelsError(
                f"{path} has {name!r} on line {lines[name]} and on line {number}: "
                "labels must differ."
            )
        lines[name] = number
        labels.append(pb.Label(name=name, id="".join(ids)))
    return labels


def _lines(path: Path) -> list[str]:
    """Without a byte order mark, and with any line ending."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise LabelsError(f"Cannot read the labels in {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise LabelsError(
            f"{path} is not UTF-8: line {line} has the byte 0x{error.object[error.start]:02x}; "
            "save it as UTF-8."
        ) from error
    return text.removesuffix("\n").split("\n")
