import json
from pathlib import Path

import pytest

from convoy.v1 import classifier_pb2 as pb
from export.errors import EvaluationError
from export.evaluation.results import ResultsFile
from export.evaluation.tally import Result

LABELS = [pb.Label(name=str(digit)) for digit in range(10)]
MODEL = pb.Model(name="lenet5", version="2", manifest_digest="abc123", labels=LABELS)
RESULTS = [
    Result("7/a.png", "7", 7, (7, 1, 9, 4, 3), (0.5, 0.25, 0.125, 0.0625, 0.0)),
    Result("7/\udcff.png", "7", 7, excluded="IMAGE_EMPTY", message="The image is empty."),
    Result("cat/b.png", "cat", excluded="UNKNOWN_LABEL", message="no class is called 'cat'"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


def write(path: Path, *results: Result) -> None:
    with ResultsFile(path, MODEL) as file:
        assert list(file.resume()) == []
        for result in results:
            file.append(result)


def read(path: Path) -> list[Result]:
    with ResultsFile(path, MODEL) as file:
        return list(file.resume())


def test_what_was_written_is_read_again(path: Path) -> None:
    write(path, *RESULTS)
    assert read(path) == RESULTS == read(path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {
        "evaluation": 1,
        "model": "lenet5",
        "version": "2",
        "manifest_digest": "abc123",
    }
    assert lines[1]["scores"] == [0.5, 0.25, 0.125, 0.0625, 0.0]


def test_a_line_is_in_the_file_as_soon_as_it_is_appended(path: Path) -> None:
    with ResultsFile(path, MODEL) as file:
        assert list(file.resume()) == []
        for number, result in enumerate(RESULTS, start=2):
            file.append(result)
            assert len(path.read_text().splitlines()) == number


def test_a_file_that_is_cut_off_anywhere_goes_on(path: Path) -> None:
    write(path, *RESULTS)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with ResultsFile(path, MODEL) as file:
            there = list(file.resume())
            for result in RESULTS[len(there) :]:
                file.append(result)
        assert there == RESULTS[: len(there)] and path.read_bytes() == whole


def test_nothing_is_left_of_half_a_line_that_is_long(path: Path) -> None:
    write(path, RESULTS[0])
    with path.open("ab") as file:
        file.write(b'{"path": "' + 10_000 * b"x")
    with ResultsFile(path, MODEL) as results:
        assert list(results.resume()) == RESULTS[:1]
        results.append(RESULTS[1])
    assert path.read_bytes().endswith(b"}\n") and read(path) == RESULTS[:2]


@pytest.mark.parametrize("field", ["name", "version", "manifest_digest"])
def test_results_of_another_version_are_refused_and_kept(path: Path, field: str) -> None:
    write(path, *RESULTS)
    before = path.read_bytes()
    other = pb.Model()
    other.CopyFrom(MODEL)
    setattr(other, field, "other")
    with pytest.raises(EvaluationError, match="has the results of lenet5 version 2, manifest abc"):
        ResultsFile(path, other)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"\x89PNG\r\n", b"path,label\na.png,7\n", b"{}\n", b"[]"])
def test_a_file_of_something_else_is_refused_and_kept(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(EvaluationError, match="not a file of results, and stays as it is"):
        ResultsFile(path, MODEL)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"path": "a", "label": "7"}',
        '{"path": "a", "label": "7", "truth": 7, "best": [], "scores": []}',
        '{"path": "a", "label": "7", "truth": 7, "best": [7, 1], "scores": [0.5]}',
        '{"path": "a", "label": "7", "truth": "7", "best": [7], "scores": [0.5]}',
        '{"path": "a", "label": "7", "truth": 7, "best": 7, "scores": [0.5]}',
        '{"path": "a", "label": "7", "truth": 10, "best": [7], "scores": [0.5]}',
        '{"path": "a", "label": "7", "truth": 7, "best": [-1], "scores": [0.5]}',
        '{"path": "a", "label": "7", "truth": 7, "best": [7], "scores": ["x"]}',
        '{"path": "a", "label": "7", "truth": 7, "best": [7], "scores": [0.5], "more": 1}',
    ],
)
def test_a_line_that_is_no_result_is_named(path: Path, line: str) -> None:
    write(path, RESULTS[0])
    with path.open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(EvaluationError, match=r"Line 3 of .* is not a result"):
        read(path)


def test_two_evaluations_do_not_write_to_one_file(path: Path) -> None:
    with (
        ResultsFile(path, MODEL),
        pytest.raises(EvaluationError, match=r"Another evaluation is writing to .*results\.jsonl"),
    ):
        ResultsFile(path, MODEL)
    write(path, *RESULTS)
