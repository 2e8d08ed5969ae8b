"""`convoy evaluate` with a gateway that serves LeNet-5."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from convoy.v1 import classifier_pb2 as pb
from export.console import ProgressBars
from export.evaluate import evaluate, print_classes, print_evaluation
from export.evaluation.asking import Evaluation
from export.evaluation.tally import Result, Tally
from tests.conftest import RunningGateway
from tests.export.labelled import write_digits

ROOT = Path(__file__).parents[2]
COUNT = 12

# A shell has background processes ignore SIGINT, and their children inherit that.
INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from convoy.cli import main
main()
"""

app = typer.Typer()
app.command()(evaluate)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits")
    write_digits(path, COUNT)
    return path


@pytest.fixture(autouse=True)
def server(lenet_gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOY_SERVER", lenet_gateway.grpc)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["lenet5", *map(str, arguments)])


@pytest.mark.parametrize("api", ["grpc", "http"])
def test_the_figures_are_printed(folder: Path, lenet_gateway: RunningGateway, api: str) -> None:
    done = run(folder, "--server", getattr(lenet_gateway, api))
    assert (done.exit_code, done.stderr) == (0, "")
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines[0].startswith("lenet5 version 1, manifest ")
    assert lines[1:3] == [
        f"top-1 100.00% ({COUNT} of {COUNT})",
        f"top-5 100.00% ({COUNT} of {COUNT})",
    ]
    assert lines[3].startswith("calibration error ") and lines[3].endswith("%, 15 bins")
    labels = sorted(path.name for path in folder.iterdir())
    assert [line.split()[0] for line in lines if line.endswith("100.00%")] == labels


def test_json_has_all_figures_and_continues(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    first = json.loads(run(folder, "--json", "--out", out).stdout)
    assert (first["model"], first["version"], first["images"], first["resumed"]) == (
        "lenet5",
        "1",
        COUNT,
        0,
    )
    again = run(folder, "--json", "--out", out)
    assert (again.exit_code, again.stderr) == (0, "")
    assert json.loads(again.stdout) == first | {"resumed": COUNT}


def test_what_is_left_out_is_reported_with_exit_code_3(folder: Path, tmp_path: Path) -> None:
    seven = next((folder / "7").iterdir())
    truth = tmp_path / "truth.csv"
    truth.write_text(f"path,label\n{seven},7\n{seven},1\n{seven},seven\nlost.png,7\n")
    done = run(truth)
    assert done.exit_code == 3
    assert "top-1 50.00% (1 of 2)" in done.stdout
    assert "most confident wrong answers" in done.stdout
    assert done.stderr.splitlines() == [
        "1 of 4 pictures are left out, since their labels are none of the network's: no class is "
        "called 'seven'; there is '0'.",
        "Left out, UNKNOWN_LABEL: 1",
        f"  {seven}: no class is called 'seven'; there is '0'",
        "Left out, UNREADABLE_FILE: 1",
        "  lost.png: No such file or directory",
    ]


def test_what_else_happened_is_remarked(capsys: pytest.CaptureFixture[str]) -> None:
    evaluation = Evaluation(Tally(1), 9, Counter(Overloaded=3, Unavailable=1), "2")
    model = pb.Model(name="lenet5", version="1", is_default=True)
    print_evaluation(model, evaluation)
    assert capsys.readouterr().err.splitlines() == [
        "9 answers were in the file already.",
        "The gateway was asked again after a pause: Overloaded 3 times, Unavailable 1 times.",
        "Meanwhile version 2 became the default; these are the figures of version 1.",
    ]
    print_evaluation(model, Evaluation(Tally(1), default_version="1"))
    assert capsys.readouterr().err == ""


def test_of_many_classes_the_worst_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally(30)
    for truth in range(25):  # the last five have no pictures
        for best in (truth, 29 if truth == 24 else truth):
            tally.add(Result("a.png", str(truth), truth, (best,), (0.9,)))
    print_classes(tally, [pb.Label(name=f"class{n}") for n in range(30)])
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading == "  the worst 20 of 25 classes; --json has all"
    rows = [line.split() for line in lines if "class" in line]
    assert len(rows) == 20 and rows[0] == ["class24", "2", "50.00%", "50.00%"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{tmp}/nowhere"], 1, "nowhere cannot be read: No such file or directory"),
        (["{tmp}"], 1, "no labelled pictures"),
        (["{digits}", "--version", "7"], 1, "lenet5 has no version '7'"),
        (["{digits}", "--server", "127.0.0.1:1"], 1, "127.0.0.1:1"),
        (["{digits}", "--out", "{tmp}/no/results"], 1, "No such file or directory"),
        (["{digits}", "--concurrency", "0"], 2, "--concurrency"),
        (["{unreadable}"], 1, "No picture was measured."),
    ],
)
def test_failure_is_one_sentence(
    folder: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    unreadable = tmp_path / "truth.csv"
    unreadable.write_text("path,label\nlost.png,7\n")
    places = {"tmp": tmp_path, "digits": folder, "unreadable": unreadable}
    done = run(*(argument.format(**places) for argument in arguments))
    assert done.exit_code == code
    assert message in done.stderr


def test_ctrl_c_leaves_a_file_that_the_same_command_continues(folder: Path, tmp_path: Path) -> None:
    truth, out = tmp_path / "truth.csv", tmp_path / "results.jsonl"
    seven = next((folder / "7").iterdir())
    truth.write_text("path,label\n" + f"{seven},7\n" * 100_000)
    command = [sys.executable, "-c", INTERRUPTIBLE, "evaluate", "lenet5", str(truth)]
    command.append(f"--out={out}")
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while not out.exists() or out.read_bytes().count(b"\n") < 4:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr == f"Interrupted: the same command continues after the answers in {out}.\n"
    answered = out.read_bytes().count(b"\n") - 1
    assert 3 <= answered < 100_000 and out.read_bytes().endswith(b"}\n")
    truth.write_text("path,label\n" + f"{seven},7\n" * (answered + 2))
    figures = json.loads(run(truth, "--out", out, "--json").stdout)
    assert (figures["images"], figures["resumed"]) == (answered + 2, answered)


def test_the_progress_bar_has_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the pictures that are asked about, and not of those whose results are there."""
    seconds = iter(range(1000))
    monkeypatch.setattr(Console, "is_terminal", True)
    bars = ProgressBars("lenet5", 1)
    bars._progress.get_time = lambda: float(next(seconds))
    for completed in range(500, 506):
        bars.progress("Asking", completed, 1000, "pictures")
    (shown,) = [task.description for task in bars._progress.tasks if "Asking" in task.description]
    assert shown.startswith("Asking: 505 of 1000, ")
    assert 0 < float(shown.rpartition(", ")[2].removesuffix("/s")) <= 1
