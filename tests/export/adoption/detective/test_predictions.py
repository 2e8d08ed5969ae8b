"""What a reference answered, in all forms that are read; and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from convoy.v1 import classifier_pb2 as pb
from export.adoption.detective.predictions import Predictions, read_predictions
from export.errors import AdoptionError
from export.evaluation.truth import Classes

CLASSES = Classes([pb.Label(name="daisy", id="n01"), pb.Label(name="tulip"), pb.Label(name="0")])


def read(folder: Path, text: str) -> Predictions:
    path = folder / "answers"
    path.write_text(text)
    return read_predictions(path, CLASSES, 3)


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na.jpg,daisy\nb/c.jpg,1\n",
        "label,file\nn01,a.jpg\ntulip,b/c.jpg\n",
        '{"path": "a.jpg", "index": 0}\n\n{"path": "b/c.jpg", "label": "tulip"}\n',
    ],
)
def test_labels_are_read_by_name_id_and_index(text: str, tmp_path: Path) -> None:
    predictions = read(tmp_path, text)
    assert {name: it.label for name, it in predictions.by_name.items()} == {
        "a.jpg": 0,
        "b/c.jpg": 1,
    }
    assert not predictions.has_scores


@pytest.mark.parametrize(
    "text",
    [
        "path,daisy,tulip,0\na.jpg,0.25,0.625,0.125\n",
        "path,label,score\na.jpg,tulip,0.625\na.jpg,daisy,0.25\na.jpg,2,0.125\n",
        '{"path": "a.jpg", "scores": [0.25, 0.625, 0.125]}\n',
        '{"path": "a.jpg", "probabilities": {"n01": 0.25, "tulip": 0.625, "2": 0.125}}\n',
    ],
)
def test_scores_are_read_by_class(text: str, tmp_path: Path) -> None:
    predictions = read(tmp_path, text)
    (prediction,) = predictions.by_name.values()
    assert prediction.scores == {0: 0.25, 1: 0.625, 2: 0.125} and prediction.label == 1
    assert predictions.has_scores and predictions.digits == 3


def test_a_label_that_looks_like_an_index_is_the_label(tmp_path: Path) -> None:
    predictions = read(tmp_path, "path,label\na.jpg,0\n")
    assert predictions.by_name["a.jpg"].label == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must begin with a line that names its columns"),
        ("a.jpg,daisy\n", "must begin with a line that names its columns"),
        ("path,label\n", "has no predictions"),
        ("path,label\na.jpg\n", "has 1 cells on line 2, and 2 columns"),
        (
            "path,label\na.jpg,rose\n",
            "has the label 'rose', and no class is called 'rose'; .*line 2",
        ),
        ("path,label\na.jpg,7\n", "has the label '7'"),
        ("path,label\na.jpg,daisy\na.jpg,tulip\n", "has a.jpg again"),
        ("path,label,score\na.jpg,daisy,nan\n", "has the score 'nan', which is no number"),
        (
            "path,label,score\na.jpg,daisy,0.5\nb.jpg,daisy,\n",
            "of some pictures, and none of b.jpg",
        ),
        ("path,label,score\na.jpg,daisy,1\na.jpg,daisy,1\n", "a score of a.jpg again"),
        ('{"path": "a.jpg", "scores": [1, 0]}', "has 2 scores, and the network has 3 classes"),
        ('{"path": "a.jpg"}', "has neither a label"),
        ('{"label": "daisy"}', "has no picture"),
        ('{"path"', "a line 1 that is no JSON"),
        ('{"path": "a.jpg", "scores": "high"}', "has no scores"),
    ],
)
def test_what_says_no_answers_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(AdoptionError) as refused:
        read(tmp_path, text)
    assert re.search(message, str(refused.value)), refused.value


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdoptionError, match="cannot be read"):
        read_predictions(tmp_path / "none.csv", CLASSES, 3)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AdoptionError, match="is no UTF-8 text"):
        read_predictions(tmp_path / "binary", CLASSES, 3)
