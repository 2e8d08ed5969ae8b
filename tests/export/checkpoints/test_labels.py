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
        (b"a\tn01\textra\n", "has 2 tabs on line 1"),
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


def test_list_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match=r"no\.txt: No such file"):
        read_labels(tmp_path / "no.txt")
