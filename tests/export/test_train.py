import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from export.catalog import CATALOG
from export.digits import random_fifth
from export.train import RECIPES, WEIGHTS, correct, share_of_rate, train

app = typer.Typer()
app.command()(train)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def facts_of(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "lenet5.json").read_text())
    return facts


def train_briefly(folder: Path, *, folds: bool = False, seed: int = 0) -> bytes:
    train("lenet5", folds=folds, seed=seed, epochs=1, output=folder)
    return (folder / "lenet5.pth").read_bytes()


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
    (held_out,) = facts["accuracy"]
    assert "held-out fifth of scikit-learn's load_digits" in held_out["measured"]
    network = CATALOG["lenet5"].build().eval()
    network.load_state_dict(torch.load(tmp_path / "lenet5.pth", weights_only=True))
    assert held_out["correct"] == correct(network, random_fifth().held_out)
    assert held_out["total"] == 360


def test_folds_record_the_worst_fifth_until_the_weights_change(tmp_path: Path) -> None:
    train_briefly(tmp_path, folds=True)
    measured = facts_of(tmp_path)
    fifths = measured["contiguous_fifths"]
    assert [fifth["total"] for fifth in fifths] == [360, 360, 359, 359, 359]
    worst = min(fifths, key=lambda fifth: fifth["correct"] / fifth["total"])
    assert "worst contiguous fifth" in measured["accuracy"][1]["measured"]
    assert measured["accuracy"][1].items() >= worst.items()
    assert len({fifth["correct"] for fifth in fifths}) > 1

    train_briefly(tmp_path)
    assert facts_of(tmp_path) == measured  # the same weights: the measurement still holds

    train_briefly(tmp_path, seed=1)
    assert facts_of(tmp_path)["contiguous_fifths"] == []
    assert len(facts_of(tmp_path)["accuracy"]) == 1


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
    assert "export/train.py lenet5 --folds" in result.stdout


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


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_weights_are_as_good_as_their_facts_say(name: str) -> None:
    facts = json.loads((WEIGHTS / f"{name}.json").read_text())
    content = (WEIGHTS / f"{name}.pth").read_bytes()
    assert facts["sha256"] == hashlib.sha256(content).hexdigest()
    assert RECIPES[name].epochs == facts["recipe"]["epochs"]
    network = CATALOG[name].build().eval()
    network.load_state_dict(torch.load(WEIGHTS / f"{name}.pth", weights_only=True))
    held_out, worst = facts["accuracy"]
    assert correct(network, random_fifth().held_out) == held_out["correct"]
    assert held_out["correct"] / held_out["total"] >= 0.985
    assert worst["correct"] / worst["total"] >= 0.95
    assert len(facts["contiguous_fifths"]) == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_training_gives_what_ships(name: str, tmp_path: Path) -> None:
    train(name, output=tmp_path)
    facts = json.loads((tmp_path / f"{name}.json").read_text())
    # Another processor adds in another order, so the bytes may differ; what it can do may not.
    assert facts["accuracy"][0]["correct"] / 360 >= 0.985
