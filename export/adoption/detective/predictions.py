"""What a reference system answered to pictures: a file with a label or scores for each of them.

    path,label        path,label,score      path,daisy,tulip      {"path": "a.jpg", "label": 0}
    a.jpg,daisy       a.jpg,daisy,0.91      a.jpg,0.91,0.09       {"path": "b.jpg", "scores": […]}
    b.jpg,1           a.jpg,tulip,0.07      b.jpg,0.02,0.98

A label is its name, its id or the index of the network's output. Scores of all classes may be
logits.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NoReturn

from export.errors import AdoptionError
from export.evaluation.truth import Classes
from export.files import read_text

MAX_BYTES = 256 << 20
NAMES = ("path", "picture", "image", "file", "filename", "name")
LABELS = ("label", "class", "prediction", "index")
SCORES = ("score", "probability", "confidence")
VECTORS = ("scores", "probabilities", "logits")
FORMS = (
    "a CSV file whose first line is path,label, path,label,score or path and the classes; or "
    'JSON lines such as {"path": "a.jpg", "label": "daisy"} or {"path": "a.jpg", "scores": [0.9, '
    "0.1]}"
)
MAX_DIGITS = 7  # of a score, after its point: what a float32 holds


@dataclass
class Prediction:
    """Of one picture: the class, or scores by class."""

    label: int = -1  # the best class
    scores: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Predictions:
    file: Path
    by_name: Mapping[str, Prediction]
    digits: int  # after the point of the most exact score
    has_scores: bool


def read_predictions(path: Path, classes: Classes, count: int) -> Predictions:
    """`count` is the number of the network's classes.

    Raises:
        AdoptionError: it cannot be read, or is in none of the forms.
    """
    reader = _Reader(path, classes, count)
    text = read_text(path, MAX_BYTES, AdoptionError, f"--predictions takes {FORMS}")
    for place, record in _records(path, text):
        reader.add(place, record)
    return reader.finish()


class _Reader:
    def __init__(self, path: Path, classes: Classes, count: int) -> None:
        self._path, self._classes, self._count = path, classes, count
        self._predictions: dict[str, Prediction] = {}
        self._digits = 0

    def add(self, place: str, record: Mapping[str, Any]) -> None:
        """One record, or one of several with a class and its score each."""
        name = _take(record, NAMES)
        if not isinstance(name, str) or not name:
            self._refuse(place, f"has no picture: one of {', '.join(NAMES)} must name it")
        vector, label, score = (_take(record, keys) for keys in (VECTORS, LABELS, SCORES))
        prediction = self._predictions.setdefault(name, Prediction())
        if vector is not None:
            for index, value in self._vector(place, vector):
                self._put(place, name, index, value)
        elif label is None:
            self._refuse(place, f"has neither a label ({', '.join(LABELS)}) nor scores")
        elif score is None:
            if prediction.label >= 0:
                self._refuse(place, f"has {name} again: each picture has one label")
            prediction.label = self._class(place, label)
        else:
            self._put(place, name, self._class(place, label), score)

    def finish(self) -> Predictions:
        predictions = self._predictions
        if not predictions:
            raise AdoptionError(f"{self._path} has no predictions: expected is {FORMS}.")
        scored = [bool(prediction.scores) for prediction in predictions.values()]
        if any(scored) and not all(scored):
            name = list(predictions)[scored.index(False)]
            raise AdoptionError(f"{self._path} has scores of some pictures, and none of {name}.")
        for prediction in predictions.values():
            if prediction.scores:
                prediction.label = max(prediction.scores, key=prediction.scores.__getitem__)
        return Predictions(self._path, predictions, self._digits, any(scored))

    def _vector(self, place: str, vector: Any) -> Iterator[tuple[int, Any]]:
        if isinstance(vector, Mapping):
            yield from ((self._class(place, label), value) for label, value in vector.items())
        elif isinstance(vector, list) and len(vector) == self._count:
            yield from enumerate(vector)
        else:
            has = f"has {len(vector)} scores" if isinstance(vector, list) else "has no scores"
            self._refuse(place, f"{has}, and the network has {self._count} classes")

    def _put(self, place: str, name: str, index: int, value: Any) -> None:
        try:
            number = Decimal(str(value).strip())
        except InvalidOperation:
            number = Decimal("NaN")
        if not number.is_finite():
            self._refuse(place, f"has the score {value!r}, which is no number")
        scores = self._predictions[name].scores
        if index in scores:
            self._refuse(place, f"has a score of {name} again, for the same class")
        scores[index] = float(number)
        exponent = number.as_tuple().exponent
        assert isinstance(exponent, int)  # of what is finite
        self._digits = min(MAX_DIGITS, max(self._digits, -exponent))

    def _class(self, place: str, label: Any) -> int:
        text = str(label).strip()
        index = None if isinstance(label, int) else self._classes.find(text)
        if index is None and text.isascii() and text.isdigit() and int(text) < self._count:
            index = int(text)
        if index is None:
            self._refuse(place, f"has the label {text!r}, and {self._classes.explain(text)}")
        return index

    def _refuse(self, place: str, what: str) -> NoReturn:
        raise AdoptionError(f"{self._path} {what} ({place}).")


def _take(record: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    """The first that is there: a file may well have `path` and `name`, or `label` and `index`."""
    return next((record[key] for key in keys if record.get(key) not in (None, "")), None)


# ------------------------------------------------------------------------------ the two formats


def _records(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return _json_lines(path, text) if text.lstrip().startswith("{") else _csv_rows(path, text)


def _json_lines(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise AdoptionError(
                f"{path} has a line {number} that is no JSON: --predictions takes {FORMS}."
            ) from error
        if not isinstance(record, dict):
            raise AdoptionError(f"{path} has a line {number} that is no JSON object.")
        yield f"line {number}", record


def _csv_rows(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Columns that have no other meaning are classes, with scores."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = [cell.strip() for cell in next(reader, [])]
        if len(columns) < 2 or not set(columns) & set(NAMES):
            raise AdoptionError(
                f"{path} must begin with a line that names its columns: --predictions takes "
                f"{FORMS}."
            )
        known = {*NAMES, *LABELS, *SCORES}
        has_vector = not set(columns) & set(LABELS)
        for cells in filter(None, reader):
            if len(cells) != len(columns):
                raise AdoptionError(
                    f"{path} has {len(cells)} cells on line {reader.line_num}, and "
                    f"{len(columns)} columns."
                )
            record: dict[str, Any] = dict(zip(columns, cells, strict=True))
            if has_vector:
                record["scores"] = {key: record[key] for key in columns if key not in known}
            yield f"line {reader.line_num}", record
    except csv.Error as error:
        raise AdoptionError(f"{path} is not valid CSV: {error}.") from error
