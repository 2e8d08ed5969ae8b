import hashlib
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from export.catalog import CATALOG
from export.files import TRAINED_WEIGHTS
from export.samples.digit_accuracy import (
    MEASURING_SEED,
    count_correct,
    measure_rows,
    prepare_drawn_digits,
)
from export.samples.digits import random_fifth
from export.train import RECIPES, share_of_rate, temper, train

app = typer.Typer()
app.command()(train)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def facts_of(folder: Path, name: str = "lenet5") -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return facts


def load(name: str, folder: Path) -> torch.nn.Module:
    network = CATALOG[name].build().eval()
    network.load_state_dict(torch.load(folder / f"{name}.pth", weights_only=True))
    return network


def train_briefly(folder: Path, *, folds: bool = False, seed: int = 0) -> bytes:
    train("lenet5", folds=folds, seed=seed, epochs=1, output=folder)
    return (folder / "lenet5.pth").read_bytes()


@pytest.mark.slow
def test_same_command_gives_the_same_file(tmp_path: Path) -> None:
    torch.rand(3)  # what happened before in the process does not matter
    first = train_briefly(tmp_path / "a")
    assert train_briefly(tmp_path / "b") == first
    assert train_briefly(tmp_path / "c", seed=1) != first


def test_facts_say_what_was_done_and_measured(tmp_path: Path) -> None:
    weights = train_briefly(tmp_path, seed=3)
    facts = facts_of(tmp_path)
    assert facts["sha256"] == hashlib.sha256(weights).hexdigest()
    assert (facts["trained_on"], facts["seed"], facts["recipe"]["epochs"]) == ("digits", 3, 1)
    held_out, by_hand = facts["accuracy"]
    network = load("lenet5", tmp_path)
    assert "held-out fifth of scikit-learn's load_digits" in held_out["measured"]
    assert held_out.items() >= measure_rows(network, random_fifth().held_out).items()
    assert held_out["total"] == 360
    assert "drawn by pen and marker, both polarities" in by_hand["measured"]
    pixels, labels, total = prepare_drawn_digits(CATALOG["lenet5"].preprocessing, MEASURING_SEED)
    assert by_hand["correct"] == count_correct(network, pixels, labels)
    assert by_hand["total"] == total == 720
    assert 700 < len(pixels) == len(labels)


def test_curve_has_a_point_an_epoch(tmp_path: Path) -> None:
    train("lenet5", epochs=4, output=tmp_path)
    curve = json.loads((tmp_path / "lenet5.curve.json").read_text())
    assert [point["epoch"] for point in curve] == [1, 2, 3, 4]
    assert [point["rate"] for point in curve] == pytest.approx([0.01, 0.02, 0.01, 0])
    losses, errors = ([point[key] for point in curve] for key in ("loss", "error"))
    assert losses == sorted(losses, reverse=True)
    assert 1 > errors[0] > 2 * errors[-1] > 0


def test_measuring_anew_changes_the_figures_alone(tmp_path: Path) -> None:
    weights = train_briefly(tmp_path, folds=True)
    measured = facts_of(tmp_path)
    (tmp_path / "lenet5.json").write_text(json.dumps(measured | {"accuracy": []}))
    train("lenet5", measure=True, output=tmp_path)
    assert facts_of(tmp_path) == measured
    assert (tmp_path / "lenet5.pth").read_bytes() == weights


def test_measuring_what_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no .*lenet5\.pth to measure: train without --measure"):
        train("lenet5", measure=True, output=tmp_path)


def test_temperature_is_divided_out_of_the_last_layer() -> None:
    counts = torch.tensor([28, 20, 14, 10, 8, 6, 5, 4, 3, 2])  # of each class, 100 in all
    labels = torch.arange(10).repeat_interleave(counts)
    last = torch.nn.Linear(32 * 32, 10)
    network = torch.nn.Sequential(torch.nn.Flatten(), last)
    torch.nn.init.zeros_(last.weight)
    last.bias.data = 3 * torch.log(counts / 100)  # right but for a temperature of 3
    pixels = np.zeros((100, 32, 32, 1), dtype=np.uint8)
    assert temper(network, pixels, labels.numpy()) == pytest.approx(3, abs=0.005)
    assert torch.allclose(last.bias.softmax(0), counts / 100, atol=1e-3)


def test_folds_record_the_worst_fifth_until_the_weights_change(tmp_path: Path) -> None:
    train_briefly(tmp_path, folds=True)
    measured = facts_of(tmp_path)
    fifths = measured["contiguous_fifths"]
    assert [fifth["total"] for fifth in fifths] == [360, 360, 359, 359, 359]
    worst = min(fifths, key=lambda fifth: fifth["correct"] / fifth["total"])
    assert "worst contiguous fifth" in measured["accuracy"][2]["measured"]
    assert measured["accuracy"][2].items() >= worst.items()
    assert len({fifth["correct"] for fifth in fifths}) > 1

    train_briefly(tmp_path)
    assert facts_of(tmp_path) == measured  # the same weights: the measurement still holds

    train_briefly(tmp_path, seed=1)
    assert facts_of(tmp_path)["contiguous_fifths"] == []
    assert len(facts_of(tmp_path)["accuracy"]) == 2


def test_results_are_printed_with_their_denominators(tmp_path: Path) -> None:
    result = run("lenet5", "--epochs", "1", "--output", str(tmp_path))
    assert result.exit_code == 0
    assert str(tmp_path / "lenet5.pth") in result.stdout
    assert "of 360" in result.stdout
    assert "Training lenet5" in result.stderr


def test_unknown_network_is_answered_with_the_nearest() -> None:
    result = run("lenet-5")
    assert result.exit_code == 2
    assert result.stderr == "No network called 'lenet-5' is trained here: did you mean lenet5?\n"


def test_network_that_is_not_trained_here_is_wrong_usage() -> None:
    assert "resnet152" in CATALOG
    assert run("resnet152").exit_code == 2


def test_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=r"^Cannot write to .*--output\.$"):
        train("lenet5", epochs=1, output=tmp_path / "file" / "weights")


def test_help_teaches_with_examples() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "export/train.py resnet20_digits --folds" in result.stdout


def test_importing_the_command_does_not_import_torch() -> None:
    check = (
        "import sys, export.train; print(sorted({'torch', 'sklearn', 'numpy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", check]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_rate_rises_for_two_epochs_and_falls_to_nothing() -> None:
    shares = [share_of_rate(step / 10, epochs=6) for step in range(61)]
    assert (shares[0], shares[10]) == (0, 0.5)
    assert max(shares) == shares[20] == 1
    assert shares == sorted(shares[:21]) + sorted(shares[21:], reverse=True)
    assert shares[40] == pytest.approx(0.5)
    assert shares[60] == pytest.approx(0)
    assert share_of_rate(2, epochs=2) == 1  # a quick try of two epochs never gets further


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_weights_are_as_good_as_their_facts_say(name: str) -> None:
    facts = facts_of(TRAINED_WEIGHTS, name)
    content = (TRAINED_WEIGHTS / f"{name}.pth").read_bytes()
    assert facts["sha256"] == hashlib.sha256(content).hexdigest()
    assert len(content) < 2_000_000
    assert facts["recipe"] == asdict(RECIPES[name])
    network = load(name, TRAINED_WEIGHTS)
    held_out, by_hand, worst = facts["accuracy"]
    assert held_out.items() >= measure_rows(network, random_fifth().held_out).items()
    pixels, labels, _ = prepare_drawn_digits(CATALOG[name].preprocessing, MEASURING_SEED)
    # Another processor may round a picture or two to the other side.
    assert by_hand["correct"] == pytest.approx(count_correct(network, pixels, labels), abs=2)
    assert held_out["correct"] / held_out["total"] >= 0.985
    assert by_hand["correct"] / by_hand["total"] >= 0.95
    assert worst["correct"] / worst["total"] >= 0.95
    assert len(facts["contiguous_fifths"]) == 5


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_curve_ends_where_the_network_has_learnt(name: str) -> None:
    curve = json.loads((TRAINED_WEIGHTS / f"{name}.curve.json").read_text())
    assert [point["epoch"] for point in curve] == list(range(1, RECIPES[name].epochs + 1))
    assert max(point["rate"] for point in curve) == pytest.approx(RECIPES[name].rate, rel=0.01)
    assert curve[-1]["error"] < 0.1 < curve[0]["error"]


@pytest.mark.parametrize("name", RECIPES)
def test_page_has_the_figures_as_measured(name: str) -> None:
    shares = [
        f"{figure['correct']} of {figure['total']} ({figure['correct'] / figure['total']:.1%})"
        for figure in facts_of(TRAINED_WEIGHTS, name)["accuracy"]
    ]
    held_out, by_hand, worst = shares
    page = (TRAINED_WEIGHTS.parents[1] / "docs" / "digit-networks.md").read_text()
    assert f"| `{name}` | {held_out} | {worst} | {by_hand} |" in page


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_training_gives_what_ships(name: str, tmp_path: Path) -> None:
    train(name, output=tmp_path)
    facts = json.loads((tmp_path / f"{name}.json").read_text())
    # Another processor adds in another order, so the bytes may differ; what it can do may not.
    assert facts["accuracy"][0]["correct"] / 360 >= 0.985
