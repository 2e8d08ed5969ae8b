"""Hidden preparations are found by the answers of other code, and nothing is guessed."""

from __future__ import annotations

import csv
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from convoy.v1 import classifier_pb2 as pb
from export.adopt import adopt
from export.adoption.detective.investigation import check, investigate, read, space_of
from export.adoption.detective.report import (
    explain_misfit,
    render_aspects,
    render_summary,
    render_untried,
)
from export.adoption.detective.search import Unfinished, search
from export.adoption.detective.time_limit import OutOfTime, TimeLimit
from export.adoption.detective.trials import Subject, Trials
from export.errors import AdoptionError
from export.preparation.options import PreparationOptions
from export.progress import SILENT
from export.repository.config import read_facts
from tests.export.adoption.detective.hidden import (
    HIDDEN,
    LABELS,
    LIMIT_S,
    find,
    prepare_case,
    to_options,
    verdict,
    write_pictures,
)
from tests.export.recorder import Recorder

BY_NAME = {hidden.name: hidden for hidden in HIDDEN}
SOLVED = ("found", "equivalent")
# What is known of torchvision's first recipe, so that little is left to search.
KNOWN = PreparationOptions(mean="0.485,0.456,0.406", std="0.229,0.224,0.225", channels="rgb")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder)
    return folder


@pytest.fixture(scope="module")
def case(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The words of a command, and the reference's scores."""
    hidden = BY_NAME["torchvision, first"]
    return prepare_case(hidden, pictures, tmp_path_factory.mktemp("case"))


def rewritten(scores: Path, path: Path, *, by: int = 0, labels: bool = False) -> Path:
    """The scores of the picture that is so many further; or labels alone."""
    header, *rows = csv.reader(scores.read_text().splitlines())
    moved = [[row[0], *rows[(n + by) % len(rows)][1:]] for n, row in enumerate(rows)]
    if labels:
        header, moved = ["path", "label"], [[row[0], best_label(row[1:])] for row in moved]
    path.write_text("".join(",".join(row) + "\n" for row in [header, *moved]))
    return path


def best_label(scores: list[str]) -> str:
    return max(zip(map(float, scores), LABELS, strict=True))[1]


@pytest.mark.parametrize("name", ["Keras, caffe", "timm 0.95"])
def test_a_hidden_preparation_is_found(name: str, pictures: Path, tmp_path: Path) -> None:
    findings, reference = find(BY_NAME[name], pictures, tmp_path)
    assert verdict(BY_NAME[name], findings) in SOLVED
    assert findings.agreeing == len(reference) == 12
    assert not findings.unfinished and not render_untried(findings)
    check(findings, reference, "hidden.onnx")


def test_numbers_that_nobody_published_are_computed(pictures: Path, tmp_path: Path) -> None:
    hidden = BY_NAME["numbers of its own"]
    words, scores = prepare_case(hidden, pictures, tmp_path)
    known = PreparationOptions(resize=70, interpolation="bicubic", resize_mode="shorter")
    options = to_options(words, known)
    findings = investigate(options, read(options, scores), SILENT, LIMIT_S)
    assert verdict(hidden, findings) == "found"


def test_pictures_are_matched_by_their_paths_or_by_names_of_their_own(
    case: tuple[list[str], Path], pictures: Path, tmp_path: Path
) -> None:
    for name in ("x/00.png", "y/00.png", "y/01.png"):
        path = tmp_path / "folders" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((pictures / path.name).read_bytes())
    answers = tmp_path / "answers.csv"
    answers.write_text("path,label\nx/00.png,a\n00.png,b\n/elsewhere/01.png,c\n")
    reference = read(to_options([*case[0][:-1], str(tmp_path / "folders")]), answers)
    assert reference.names == ("x/00.png", "y/01.png")
    assert reference.labels.tolist() == [0, 2]


@pytest.mark.slow
def test_of_24_hidden_preparations_22_are_found(pictures: Path, tmp_path: Path) -> None:
    verdicts = {
        hidden.name: verdict(hidden, find(hidden, pictures, tmp_path / str(number))[0])
        for number, hidden in enumerate(HIDDEN)
    }
    assert len(verdicts) == 24
    assert sum(it in SOLVED for it in verdicts.values()) >= 22, verdicts
    assert "WRONG" not in verdicts.values(), verdicts


def test_what_cannot_be_told_apart_is_open(
    case: tuple[list[str], Path], pictures: Path, tmp_path: Path
) -> None:
    """Of three pictures, labels alone say little; with all scores, five aspects are certain."""
    words, scores = case
    few = tmp_path / "few"
    write_pictures(few, 3)
    answers = rewritten(scores, tmp_path / "labels.csv", labels=True)
    options = to_options([*words[:-1], str(few)], KNOWN)
    reference = read(options, answers)
    findings = investigate(options, reference, SILENT, LIMIT_S)
    certainty = {aspect.name: aspect.certainty for aspect in findings.aspects}
    assert certainty["interpolation"] == "open" and findings.alike
    assert {"interpolation", "antialiasing"} <= set(findings.assumed)
    assert not {"mean", "std", "channels"} & set(findings.assumed)
    assert certainty["mean and std"] == "fixed"
    summary = "\n".join(render_summary(findings, reference, 1))
    assert "3 pictures with labels alone" in summary and "for 3 of 3 pictures" in summary


def test_with_scores_each_aspect_is_certain(case: tuple[list[str], Path]) -> None:
    words, scores = case
    options = to_options(words)
    reference, recorder = read(options, scores), Recorder()
    findings = investigate(options, reference, recorder, LIMIT_S)
    assert {aspect.certainty for aspect in findings.aspects} == {"certain"}
    assert findings.assumed == []
    assert render_aspects(findings).row_count == 5
    task, completed, total = recorder.reports[-1]
    assert task == "settings, on 12 pictures" and completed > 1 and total is None


def test_answers_to_other_pictures_fit_nothing(
    case: tuple[list[str], Path], tmp_path: Path
) -> None:
    words, scores = case
    options = to_options(words, replace(KNOWN, resize=73))
    reference = read(options, rewritten(scores, tmp_path / "moved.csv", by=1))
    findings = investigate(options, reference, SILENT, LIMIT_S)
    assert not findings.fits
    with pytest.raises(AdoptionError, match="is not adopted: none of the"):
        check(findings, reference, "hidden.onnx")
    assert "Check that the reference had the same weights" in explain_misfit(findings, reference)


def test_a_search_ends_when_its_time_is_over(case: tuple[list[str], Path]) -> None:
    words, scores = case
    options = to_options(words)
    reference = read(options, scores)
    recorder = Recorder()
    findings = investigate(options, reference, recorder, 0)
    assert findings.tried == 1, "one setting on a few pictures, and one on all of them"
    assert {aspect.certainty for aspect in findings.aspects} == {"not tried"}
    assert findings.assumed == [
        *("resize", "interpolation", "antialiasing", "resize mode", "channels", "mean", "std")
    ]
    untried = render_untried(findings)
    assert untried.startswith("its time was over, so it has not tried: 18 published recipes, ")
    assert "of interpolation" in untried and "--search-minutes" in untried
    assert ("seconds, at most", 0, 0) in recorder.reports


def test_a_search_says_which_recipes_it_has_not_followed(case: tuple[list[str], Path]) -> None:
    words, scores = case
    options = to_options(words, PreparationOptions(interpolation="nearest"))
    space, reference = space_of(options), read(options, scores)
    limit = Checks(len(space.published()) - 1)  # none before the first
    trials = Trials(Subject(options), reference.spread(2), SILENT, limit)
    assert search(trials, space) == Unfinished(recipes=0, starts=4)


class Checks(TimeLimit):
    """Time for so many of them."""

    def __init__(self, count: int) -> None:
        super().__init__(LIMIT_S, SILENT)
        self._left = count

    def check(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise OutOfTime


def test_logits_are_scores_too(case: tuple[list[str], Path], tmp_path: Path) -> None:
    words, scores = case
    header, *rows = csv.reader(scores.read_text().splitlines())
    lines = [header, *([row[0], *(f"{40 * float(it)}" for it in row[1:])] for row in rows)]
    path = tmp_path / "logits.csv"
    path.write_text("".join(",".join(line) + "\n" for line in lines))
    reference = read(to_options(words), path)
    assert reference.scores is not None
    assert abs(reference.scores.sum(axis=1) - 1).max() < 1e-5


# ------------------------------------------------------------------------------ the command


def run(repository: Path, *words: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    app = typer.Typer()
    app.command()(adopt)
    ended = CliRunner(env={"COLUMNS": "200"}).invoke(
        app, [*map(str, words), "--repository", str(repository)], catch_exceptions=False
    )
    return ended.exit_code, ended.stdout, ended.stderr


def test_the_command_publishes_what_was_found(case: tuple[list[str], Path], tmp_path: Path) -> None:
    words, scores = case
    code, report, problems = run(tmp_path, *words, *KNOWN.words, "--predictions", scores)
    assert code == 0, problems
    assert "reference: 12 pictures with scores" in report
    assert "its label for 12 of 12 pictures" in report
    model = read_facts(tmp_path / "hidden.v1")
    assert model
    assert model.manifest.preparation == pb.PreparationOrigin(
        source="found", file="answers.csv", images=12
    )
    assert "found by what another system answered to 12 pictures (answers.csv)." in report
    command = shlex.split(model.manifest.build_command)
    assert command[command.index("--resize") + 1] == "73"
    assert "--antialias" in command and "--predictions" not in command


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ("path,label\nnone.png,a\n", "has predictions of none of the pictures in"),
        ("path,label,score\n00.png,a,7\n", "are no probabilities: give those, or the logits"),
        ("path,label\n00.png,z\n", "has the label 'z'"),
    ],
)
def test_bad_predictions_publish_nothing(
    answers: str, message: str, case: tuple[list[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "answers.csv"
    path.write_text(answers)
    code, _, problems = run(tmp_path / "models", *case[0], "--predictions", path)
    assert code == 1 and message in problems
    assert not (tmp_path / "models").exists()


def test_what_would_be_a_guess_is_not_published(
    case: tuple[list[str], Path], tmp_path: Path
) -> None:
    words, scores = case
    answers = rewritten(scores, tmp_path / "labels.csv", labels=True)
    answers.write_text("".join(answers.read_text().splitlines(keepends=True)[:3]))
    code, report, problems = run(tmp_path / "models", *words, "--predictions", answers)
    assert code == 1 and "choosing one would be a guess" in problems
    assert "2 pictures with labels alone" in report and "open: " in report
    assert not (tmp_path / "models").exists()


def test_predictions_need_their_pictures(case: tuple[list[str], Path], tmp_path: Path) -> None:
    words, scores = case
    code, _, problems = run(tmp_path, *words[:-2], "--predictions", scores)
    assert code == 1 and "give --examples DIR, with these pictures" in problems
