"""The file of answers: one JSON object per line, in the order of the labelled pictures.

    {"evaluation": 1, "model": "lenet5", "version": "1", "manifest_digest": "5c0f…"}
    {"path": "7/1.png", "label": "7", "truth": 7, "best": [7, 1, 9, 4, 3], "scores": [0.98, …]}
    {"path": "7/2.png", "label": "7", "truth": 7, "excluded": "IMAGE_DECODE_FAILED", "message": "…"}

An evaluation that was stopped goes on after the last whole line. A line that is cut off, by a full
disk or a lost machine, is written again.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from convoy.v1 import classifier_pb2 as pb
from export.errors import EvaluationError
from export.evaluation.tally import TOP, Result

FORMAT = 1


class ResultsFile:
    """Opens the file, or makes it; `resume` must be read to its end before `append`.

    Raises:
        EvaluationError: it is a file of something else, of another version, or in use.
        OSError: it cannot be opened or written.
    """

    def __init__(self, path: Path, model: pb.Model) -> None:
        self._path = path
        self._classes = len(model.labels)
        self._header = {
            "evaluation": FORMAT,
            "model": model.name,
            "version": model.version,
            "manifest_digest": model.manifest_digest,
        }
        path.touch()
        self._file = path.open("r+b")
        try:
            self._begin()
        except BaseException:
            self._file.close()
            raise

    def _begin(self) -> None:
        self._lock()
        expected, line = to_line(self._header), self._file.readline()
        if line != expected and expected.startswith(line):  # empty, or cut off
            self._file.seek(0)
            self._file.truncate()
            self._write(expected)
        elif line != expected:
            self._refuse(parse(line))

    def _lock(self) -> None:
        """For this evaluation alone, on a file system that has locks."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EvaluationError(f"Another evaluation is writing to {self._path}.") from error
        except OSError:
            pass

    def _refuse(self, header: Any) -> None:
        if not isinstance(header, dict) or header.get("evaluation") != FORMAT:
            raise EvaluationError(
                f"{self._path} is not a file of results, and stays as it is: give another --out."
            )
        raise EvaluationError(
            f"{self._path} has the results of {describe(header)}, and the gateway answers with "
            f"{describe(self._header)}: give another --out, or --version."
        )

    def resume(self) -> Iterator[Result]:
        """The results that are there, one at a time."""
        number = 1
        while line := self._file.readline():
            number += 1
            if not line.endswith(b"\n"):
                self._file.seek(-len(line), 1)
                self._file.truncate()
                return
            if (result := to_result(parse(line), self._classes)) is None:
                raise EvaluationError(
                    f"Line {number} of {self._path} is not a result: delete it and what follows."
                )
            yield result

    def append(self, result: Result) -> None:
        facts = {name: value for name, value in asdict(result).items() if value not in ((), "")}
        self._write(to_line(facts))

    def _write(self, line: bytes) -> None:
        self._file.write(line)
        self._file.flush()

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()


def describe(header: dict[str, Any]) -> str:
    digest = str(header.get("manifest_digest"))[:12]
    return f"{header.get('model')} version {header.get('version')}, manifest {digest}"


def to_line(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"


def parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def to_result(facts: Any, classes: int) -> Result | None:
    """None if the line does not say what a result says, of a network with so many classes."""
    try:
        lists = {name: tuple(facts.get(name, ())) for name in ("best", "scores")}
        result = Result(**{**facts, **lists})
    except (TypeError, AttributeError):
        return None
    is_answer = (
        1 <= len(result.best) == len(result.scores) <= TOP
        and all(isinstance(index, int) for index in (result.truth, *result.best))
        and all(0 <= index < classes for index in (result.truth or 0, *result.best))
        and all(isinstance(score, float) for score in result.scores)
    )
    return result if is_answer or result.excluded else None
