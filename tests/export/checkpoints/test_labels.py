import json
from pathlib import Path

import pytest

from export.checkpoints.labels import read_labels
from export.errors import LabelsError


def read(path: Path, content: bytes) -> list[tuple[str, str]]:
    path.write_bytes(content)
    return [(label.name, label.id) for label in read_labels(path)]


def test_label_a_line_with_its_id_after_a_tab(tmp_path: Path) -> None:
    labels = read(tmp_path / "l.txt", "daisy\tn11939491\nGänseblümchen, groß\nrose\n".encode())
    assert labels == [("daisy", "n11939491"), ("Gänseblümchen, groß", ""), ("rose", "")]


@pytest.mark.parametrize("content", [b"a\r\nb c\r\n", b"\xef\xbb\xbfa\nb c", b"a \n b c\n"])
def test_whatever_an_editor_leaves_around_labels_is_no_part_of_them(
    content: bytes, tmp_path: Path
) -> None:
    assert read(tmp_path / "l.txt", content) == [("a", ""), ("b c", "")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no label on line 1"),
        (b"a\n\nb\n", "has no label on line 2"),
        (b"a\nb\n\n", "has no label on line 3"),
        (b"a\n\tn01\n", "has no label on line 2"),
        (b"a\nb\na\n", "has 'a' on line 1 and on line 3"),
        (b"a\n\x1b[2Jb\n", r"has the control character '\\x1b' on line 2"),
        ("a\tn\u202e01\n".encode(), r"has the control character '\\u202e' on line 1"),
        (b"a\nros\xe9\n", "is not UTF-8: line 2 has the byte 0xe9; save it as UTF-8"),
    ],
)
def test_list_that_cannot_be_meant_is_refused_by_line(
    content: bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(LabelsError, match=message):
        read(tmp_path / "l.txt", content)


ANIMALS = [("ant", ""), ("bee", ""), ("cat", "")]
WITH_IDS = [("tench", "n01440764"), ("goldfish, Carassius", "n01443537")]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("plain.csv", "ant\nbee\ncat\n", ANIMALS),
        ("header.csv", "Index,Name\r\n2,cat\r\n0,ant\r\n1,bee\r\n", ANIMALS),
        ("pandas.csv", ",label\n0,ant\n1,bee\n2,cat\n", ANIMALS),
        ("excel.csv", "\ufeffclass_id;class_name\n1;bee\n0;ant\n2;cat\n", ANIMALS),
        ("indexed.csv", "1,bee\n0,ant\n2,cat", ANIMALS),
        ("indexed.txt", "1\tbee\n0\tant\n2\tcat\n", ANIMALS),
        (
            "synsets.csv",
            'id,name\nn01440764,tench\nn01443537,"goldfish, Carassius"\n',
            WITH_IDS,
        ),
        ("synsets.tsv", "n01440764\ttench\nn01443537\tgoldfish, Carassius\n", WITH_IDS),
        ("whole.tsv", "1\tn01443537\tgoldfish, Carassius\n0\tn01440764\ttench", WITH_IDS),
        ("digits.txt", "1\n0\n", [("1", ""), ("0", "")]),
        ("brackets.txt", "[none]\n{}s\n", [("[none]", ""), ("{}s", "")]),
    ],
)
def test_table_is_read_with_its_index_or_id(
    name: str, content: str, expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    assert read(tmp_path / name, content.encode()) == expected


@pytest.mark.parametrize("name", ["labels.json", "labels.txt"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"cat": 2, "ant": 0, "bee": 1}', ANIMALS),  # ImageFolder
        ('{\n"0": "ant",\n"2": "cat",\n"1": "bee"\n}\n', ANIMALS),  # TorchServe
        ('["ant", "bee", "cat"]', ANIMALS),
        (
            '{"1": ["n01443537", "goldfish, Carassius"], "0": ["n01440764", "tench"]}',  # Keras
            WITH_IDS,
        ),
        ('{"10": 1, "0": 0}', [("0", ""), ("10", "")]),  # folders that have numbers for names
    ],
)
def test_json_is_read_under_any_name(
    content: str, expected: list[tuple[str, str]], name: str, tmp_path: Path
) -> None:
    assert read(tmp_path / name, content.encode()) == expected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.csv", "name,threshold\nant,0.25\nbee,\ncat,1\n"),
        ("l.tsv", "Threshold\tindex\tname\n1\t2\tcat\n0.25\t0\tant\n\t1\tbee\n"),
        (
            "l.json",
            '[{"name": "ant", "threshold": 0.25}, {"name": "bee"}, '
            '{"name": "cat", "threshold": 1}]',
        ),
    ],
)
def test_labels_may_have_thresholds(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    labels = read_labels(tmp_path / name)
    assert [label.name for label in labels] == ["ant", "bee", "cat"]
    assert [label.threshold for label in labels if label.HasField("threshold")] == [0.25, 1]


def test_json_of_objects_may_have_ids(tmp_path: Path) -> None:
    content = json.dumps([{"name": name, "id": id_} for name, id_ in WITH_IDS])
    assert read(tmp_path / "l.json", content.encode()) == WITH_IDS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.json", '{"ant": 0, "bee": 2}', "has no index 1: its 2 labels must have .* 0 to 1"),
        ("l.json", '{"ant": 0, "bee": 0}', "has the index 0 of both 'ant' and 'bee'"),
        ("l.json", '{"0": "ant", "0": "bee"}', "not valid JSON: the key '0' is there twice"),
        ("l.json", '{"0": "ant", "1": "ant"}', "has 'ant' at index 0 and at index 1"),
        ("l.json", '{"0": "", "1": "ant"}', "has no label at index 0"),
        ("l.txt", '{\n"0": "ant",\n', "is not valid JSON: .*; save one label per line"),
        ("l.txt", "{0: 'tench',\n 1: 'goldfish'}\n", "is not valid JSON"),
        ("l.json", "[" * 100_000, "is not valid JSON"),
        ("l.json", "{}", "is JSON without labels"),
        ("l.json", '{"id2label": {"0": "ant"}}', "its key 'id2label' has .*expected are"),
        ("l.json", '{"ant": true}', "its key 'ant' has true"),
        ("l.csv", "index,name\nx,ant\n", "has the index 'x' on line 2"),
        ("l.csv", "index,name\n0\n", "has no label on line 2"),
        ("l.csv", "name,threshold\nant,1.5\n", "has the threshold '1.5' on line 2: .* from 0 to 1"),
        ("l.csv", "name,threshold\nant,nan\n", "has the threshold 'nan' on line 2"),
        ("l.csv", "name,threshold\nant,high\n", "has the threshold 'high' on line 2"),
        ("l.json", '[{"name": "ant", "threshold": true}]', "has the threshold True at index 0"),
        ("l.json", '[{"name": "ant", "minimum": 1}]', "its key '0' has .*expected are"),
        ("l.csv", "image,label\na.jpg,ant\n", "has an unknown column 'image'"),
        ("l.csv", "name,label\nant,bee\n", "has a second column for the same, 'label'"),
        ("l.csv", "name\ntench, Tinca\n", "has 2 cells on line 2, and there are 1 columns"),
        ("l.csv", 'name\n"ant\n', "is not valid CSV"),
        ("l.tsv", "a\tb\tc\n", "has 3 columns and no header"),
        ("l.txt", "0: ant\n1: bee\n", "has a number before each label, as in '0: ant'"),
        ("l.yaml", "names:\n  0: ant\n", "is YAML"),
        ("l.pbtxt", "item {\n  id: 1\n", "is a label map of TensorFlow"),
        ("l.txt", "<html>\n", "is HTML or XML"),
        ("l.xlsx", "PK\x03\x04", "is a zip file, as spreadsheets are"),
    ],
)
def test_other_file_is_refused_by_its_kind(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(LabelsError, match=message):
        read(tmp_path / name, content.encode())


def test_pickle_is_refused_by_its_kind(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match="is a pickle: save one label per line"):
        read(tmp_path / "classes.pkl", b"\x80\x04]\x94.")


def test_list_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match=r"no\.txt: No such file"):
        read_labels(tmp_path / "no.txt")
