import os
from pathlib import Path

import pytest

from convoy.v1 import classifier_pb2 as pb
from export.errors import EvaluationError
from export.evaluation.truth import Classes, Truth, truth_sha256


def listed(source: Path) -> list[tuple[str, str]]:
    return [(item.name, item.label) for item in Truth(source)]


def write(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def table(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "truth.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_folder_is_a_label_and_its_order_is_the_same_each_time(tmp_path: Path) -> None:
    write(tmp_path, "tulip/b.jpg", "daisy/2.jpg", "tulip/a/c.jpg", "daisy/10.jpg")
    expected = [
        ("daisy/10.jpg", "daisy"),
        ("daisy/2.jpg", "daisy"),
        ("tulip/b.jpg", "tulip"),
        ("tulip/a/c.jpg", "tulip"),
    ]
    assert listed(tmp_path) == expected == listed(tmp_path)


def test_hidden_files_and_files_beside_the_labels_are_no_pictures(tmp_path: Path) -> None:
    write(tmp_path, "README", ".git/x", "daisy/.DS_Store", "daisy/.thumbs/1.jpg", "daisy/1.jpg")
    assert listed(tmp_path) == [("daisy/1.jpg", "daisy")]


def test_a_name_that_is_no_utf8_is_listed(tmp_path: Path) -> None:
    folder = tmp_path / "daisy"
    folder.mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.jpg")).write_bytes(b"x")
    assert listed(tmp_path) == [("daisy/\udcff.jpg", "daisy")]
    assert len(truth_sha256(tmp_path)) == 64


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na.jpg,daisy\n\nb/c.jpg,tulip\n",
        "\ufefflabel, path\r\ndaisy,a.jpg\r\n tulip ,b/c.jpg\r\n",
        'path,label\n"a.jpg","daisy"\nb/c.jpg,tulip',
    ],
)
def test_a_table_has_paths_below_its_folder(tmp_path: Path, text: str) -> None:
    source = table(tmp_path, text)
    assert listed(source) == [("a.jpg", "daisy"), ("b/c.jpg", "tulip")]
    assert [item.path for item in Truth(source)] == [tmp_path / "a.jpg", tmp_path / "b/c.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label,split\na,b,c\n", "unknown column 'split': its first line must be path,label"),
        ("a.jpg,daisy\n", "unknown column 'a.jpg', 'daisy'"),
        ("path\na.jpg\n", "must begin with the line path,label"),
        ("path,label,label\na,b,c\n", "must begin with the line path,label"),
        ("", "must begin with the line path,label"),
        ("path,label\na,b\na,b,c\n", "'c'] on line 3"),
        ("path,label\n,daisy\n", "on line 2: expected are a path and a label"),
        ('path,label\n"a,daisy\n', "not valid CSV"),
        (b"path,label\n\xff,daisy\n", "not a UTF-8 CSV file"),
    ],
)
def test_a_table_that_is_none_is_refused_by_its_kind(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(EvaluationError) as error:
        listed(table(tmp_path, text))
    assert message in str(error.value)


def test_what_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"nowhere cannot be read: No such file"):
        listed(tmp_path / "nowhere")


def test_the_hash_is_that_of_pictures_and_labels(tmp_path: Path) -> None:
    write(tmp_path, "daisy/1.jpg", "tulip/2.jpg")
    before = truth_sha256(tmp_path)
    assert truth_sha256(tmp_path) == before
    (tmp_path / "daisy" / "1.jpg").write_bytes(b"another")
    changed = truth_sha256(tmp_path)
    (tmp_path / "daisy").rename(tmp_path / "rose")
    assert len({before, changed, truth_sha256(tmp_path)}) == 3
    with pytest.raises(EvaluationError, match="has no pictures"):
        truth_sha256(write(tmp_path / "empty", "README"))


def test_a_class_is_found_by_name_or_id_unless_two_have_it() -> None:
    labels = [("crane", "n01"), ("crane", "n02"), ("tabby", "n03"), ("n03", "")]
    classes = Classes([pb.Label(name=name, id=id_) for name, id_ in labels])
    assert [classes.find(text) for text in ("n02", "tabby", "n01")] == [1, 2, 0]
    assert classes.find("crane") is None and classes.find("n03") is None
    assert classes.explain("crane") == "2 classes are called 'crane': use their ids"
    assert classes.explain("taby") == "no class is called 'taby'; there is 'tabby'"
