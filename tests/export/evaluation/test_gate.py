"""What builds measure with labelled pictures, and what they do not publish for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from convoy.v1 import classifier_pb2 as pb
from export.build import run
from export.build_cache import Stages
from export.catalog import find
from export.checkpoints.download import Downloads
from export.console import render_facts
from export.errors import EvaluationError
from export.evaluation.gate import BATCH, check_gate, judge_drop, measure
from export.evaluation.truth import Truth
from export.files import cache_path
from export.options import Options
from export.progress import SILENT
from export.proof.ladder import Ladder
from export.repository.config import read_facts
from export.samples.images import Pixels, Probabilities
from tests.export.labelled import write_digits
from tests.export.recorder import Recorder

COUNT = 40
LABELS = [pb.Label(name=str(digit)) for digit in range(10)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits")
    write_digits(path, COUNT)
    return path


class Constant:
    """Answers a digit for each picture, in the order of the pictures; notes the batches."""

    def __init__(self, digits: Sequence[int], score: float = 0.75) -> None:
        self._digits, self._score = list(digits), score
        self.batches: list[int] = []

    def __call__(self, images: Pixels) -> Probabilities:
        start = sum(self.batches)
        self.batches.append(len(images))
        answers = np.full((len(images), 10), (1 - self._score) / 9, dtype=np.float32)
        digits = self._digits[start : start + len(images)]
        answers[np.arange(len(images)), digits] = self._score
        return answers


def test_both_networks_answer_the_same_pictures_in_batches(folder: Path) -> None:
    truth = [int(item.label) for item in Truth(folder)]
    wrong = [(digit + 1) % 10 for digit in truth]
    candidate = Constant(wrong[:3] + truth[3:])  # loses three, and gains one
    reference = Constant(truth[:-1] + wrong[-1:])
    recorder = Recorder()
    evaluation = measure(
        Truth(folder),
        LABELS,
        find("lenet5").preprocessing,
        candidate,
        reference,
        max_batch_size=24,
        reporter=recorder,
    )
    assert candidate.batches == reference.batches == [24, BATCH - 24, COUNT - BATCH]
    assert [completed for _, completed, _ in recorder.reports] == [BATCH, COUNT]
    fp32 = evaluation.fp32
    assert (evaluation.images, evaluation.excluded, evaluation.top1_correct) == (40, 0, 37)
    assert (fp32.top1_correct, fp32.lost, fp32.gained) == (39, 3, 1)
    assert evaluation.calibration_error == pytest.approx(37 / 40 - 0.75)
    assert 2 / 40 < fp32.drop_upper_bound < 0.2


def test_what_cannot_be_measured_is_counted(tmp_path: Path) -> None:
    write_digits(tmp_path, 3)
    for name in ("7/blank.png", "cat/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no picture")
    (tmp_path / "7" / "lost.png").symlink_to("nowhere")
    preprocessing = find("lenet5").preprocessing
    answer = Constant([0] * 3)
    evaluation = measure(Truth(tmp_path), LABELS, preprocessing, answer, None, max_batch_size=8)
    assert (evaluation.images, evaluation.excluded) == (3, 3)
    assert not evaluation.HasField("fp32")
    for path in tmp_path.glob("*/[0-9]*.png"):
        path.write_bytes(b"no picture either")
    with pytest.raises(EvaluationError, match=r"No picture can be measured.* left out, REFUSED: "):
        measure(Truth(tmp_path), LABELS, preprocessing, answer, None, max_batch_size=8)


def counted(images: int, lost: int, gained: int) -> pb.Evaluation:
    fp32 = pb.PairedComparison(lost=lost, gained=gained)
    return pb.Evaluation(images=images, fp32=fp32)


def test_what_is_shown_to_lose_less_passes() -> None:
    evaluation = counted(2000, 3, 2)
    judge_drop(evaluation, 0.5)
    assert evaluation.fp32.max_drop == 0.005
    unasked = counted(10, 10, 0)
    judge_drop(unasked, None)
    assert not unasked.fp32.HasField("max_drop")


@pytest.mark.parametrize(
    ("images", "lost", "gained", "message"),
    [
        (2000, 60, 5, r"Too much is lost, 0\.5 points are allowed: .*: 2\.75 points of top-1"),
        (100, 0, 0, r"Too few pictures .*: 0\.00 .* up to 2\.63 .* 439 more pictures like these"),
        (1000, 9, 2, r"cannot be shown that less than 0\.5 .*: 0\.70 .* No number of pictures"),
    ],
)
def test_what_loses_more_or_cannot_be_told_is_an_error(
    images: int, lost: int, gained: int, message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        judge_drop(counted(images, lost, gained), 0.5)


@pytest.mark.parametrize(
    ("evaluate", "max_drop", "precision", "format_", "message"),
    [
        (None, 0.5, "int8", "onnx", "--max-drop needs --evaluate"),
        (Path("x"), 0.5, "fp32", "onnx", "give --fp16 or --int8"),
        (Path("x"), None, "int8", "rtx", "cannot run a TensorRT-RTX engine"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(
    evaluate: Path | None, max_drop: float | None, precision: str, format_: str, message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        check_gate(evaluate, max_drop, precision, format_)


# ------------------------------------------------------------------------------ builds


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("repository")


@pytest.fixture
def int8(folder: Path, repository: Path) -> Options:
    """LeNet-5 with random weights, whose graph in fp32 other tests build too."""
    network = find("lenet5")
    return Options(
        network, "int8", "random", 0, repository, calibration=folder, evaluate=folder, max_drop=50
    )


def test_an_int8_network_within_the_limit_is_published_with_its_figures(int8: Options) -> None:
    published = run(int8)
    facts = read_facts(published.folder)
    assert facts
    evaluation, fp32 = facts.manifest.evaluation, facts.manifest.evaluation.fp32
    assert (evaluation.data, evaluation.images) == (int8.evaluate and int8.evaluate.name, COUNT)
    assert evaluation.data_sha256 == int8.evaluation_sha256
    assert evaluation.top1_correct == fp32.top1_correct - fp32.lost + fp32.gained
    assert 0 < fp32.drop_upper_bound < fp32.max_drop == 0.5
    assert "--evaluate" in facts.manifest.build_command
    assert "--max-drop 50" in facts.manifest.build_command
    assert f"  {evaluation.top1_correct} of {COUNT} correct" in render_facts(facts.manifest)[0]
    assert run(int8).was_published


def test_too_few_pictures_publish_nothing(int8: Options) -> None:
    strict = dataclasses.replace(int8, max_drop=0.01, published_as="strict")
    with pytest.raises(EvaluationError, match="points of top-1 are lost"):
        run(strict)
    assert [path.name for path in int8.repository.glob("strict*")] == []


def test_fp32_is_measured_and_recorded(int8: Options) -> None:
    """As it is for the comparison with int8."""
    plain = dataclasses.replace(int8, precision="fp32", calibration=None, max_drop=None)
    downloads = Downloads("", known={}, reporter=SILENT)
    stages = Stages(cache_path() / "stages")  # of the builds above
    ladder = Ladder(plain, LABELS, stages, downloads, SILENT)
    last, model = ladder.build()
    ladder.evaluate(last, model, LABELS)
    evaluation = model.manifest.evaluation
    assert evaluation.images == COUNT and not evaluation.HasField("fp32")
    compared = run(int8).model.manifest.evaluation.fp32
    assert evaluation.top1_correct == compared.top1_correct
    assert dataclasses.replace(plain, evaluate=None).sha256 != plain.sha256


def test_a_build_without_pictures_fails_before_it_begins(int8: Options, tmp_path: Path) -> None:
    recorder = Recorder()
    with pytest.raises(EvaluationError, match="has no pictures"):
        run(dataclasses.replace(int8, evaluate=tmp_path), recorder)
    assert recorder.steps == []
