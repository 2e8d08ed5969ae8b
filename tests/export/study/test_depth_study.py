import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from export.samples.digits import clean, data_set, random_fifth
from export.study.depth_study import (
    DOCS,
    EPOCHS,
    PLOT_HEIGHT,
    PLOT_WIDTH,
    Run,
    draw,
    network,
    study,
    table,
)

SVG = "{http://www.w3.org/2000/svg}"

app = typer.Typer()
app.command()(study)


def run_study(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def example(kind: str, depth: int, seed: int, training_error: list[float]) -> Run:
    return Run(kind, depth, seed, 269434, training_error, clean_error=0.008, held_out_error=0.0139)


def read_runs(folder: Path) -> list[Run]:
    facts = json.loads((folder / "depth.json").read_text(encoding="utf-8"))
    return [Run(**run) for run in facts["runs"]]


EXAMPLES = [
    example("plain", 20, 0, [1.0, 0.5, 0.25]),
    example("plain", 20, 1, [0.9, 0.6, 0.3]),
    example("residual", 20, 0, [0.8, 0.4, 0.0]),
]


@pytest.fixture
def digits_file(tmp_path: Path) -> Path:
    """A file of the form of MNIST's digits, made of scikit-learn's."""
    rows = random_fifth().train
    path = tmp_path / "digits.npz"
    np.savez(path, images=clean(rows)[:, 2:30, 2:30, 0], labels=data_set()[1][rows])
    return path


@pytest.mark.slow
def test_study_trains_each_kind_and_writes_what_came_out(tmp_path: Path, digits_file: Path) -> None:
    options = ["--depth", "8", "--seed", "3", "--epochs", "1", "--data", str(digits_file)]
    result = run_study(*options, "--output", str(tmp_path))
    assert result.exit_code == 0, result.output
    runs = read_runs(tmp_path)
    assert [(run.kind, run.depth, run.seed) for run in runs] == [
        ("plain", 8, 3),
        ("residual", 8, 3),
    ]
    assert {run.parameters for run in runs} == {75002}
    for run in runs:
        assert len(run.training_error) == 1
        assert 0.5 < run.training_error[0] < 1  # 18 steps
    assert runs[0].training_error != runs[1].training_error
    assert result.stdout == table(runs) + "\n"
    assert (tmp_path / "depth.svg").read_text() == draw(runs)
    assert json.loads((tmp_path / "depth.json").read_text())["recipe"]["epochs"] == 1


def test_digits_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^There is no .*none\.npz\.$"):
        study([8], [0], data=tmp_path / "none.npz", output=tmp_path)


def test_depth_that_no_network_has_is_wrong_usage() -> None:
    result = run_study("--depth", "21")
    assert result.exit_code == 2
    assert result.stderr.startswith("a depth of 21 is not 6n + 2")


def test_shortcuts_change_what_a_network_does_and_not_its_parameters() -> None:
    plain, residual = network("plain", 20), network("residual", 20)
    assert plain.state_dict().keys() == residual.state_dict().keys()
    assert "layer2.0.downsample" not in dict(plain.named_modules())
    assert "layer2.0.downsample" in dict(residual.named_modules())


def test_table_has_the_errors_in_per_cent() -> None:
    rows = table(EXAMPLES).splitlines()
    assert rows[0] == (
        "| network | seed | parameters | after 1 | after 2 | after 3 | clean | held out |"
    )
    assert rows[2] == "| plain-20 | 0 | 269,434 | 100.0% | 50.0% | 25.0% | 0.8% | 1.4% |"
    assert len(rows) == 2 + len(EXAMPLES)


def test_curves_are_drawn_to_scale_in_the_panel_of_their_kind() -> None:
    plain, residual = ET.fromstring(draw(EXAMPLES)).findall(f"{SVG}g")
    first, second = plain.findall(f"{SVG}polyline")
    points = [tuple(map(float, point.split(","))) for point in first.attrib["points"].split()]
    assert points == [
        (PLOT_WIDTH / 3, 0),
        (PLOT_WIDTH * 2 / 3, PLOT_HEIGHT / 2),
        (PLOT_WIDTH, PLOT_HEIGHT * 3 / 4),
    ]
    assert first.attrib["stroke"] == second.attrib["stroke"]  # the same depth
    assert first.attrib["stroke-dasharray"] != second.attrib["stroke-dasharray"]
    (only,) = residual.findall(f"{SVG}polyline")
    assert only.attrib["points"].endswith(f" {PLOT_WIDTH}.0,{PLOT_HEIGHT}.0")
    assert "20 layers, seed 1" in [text.text for text in plain.findall(f"{SVG}text")]


@pytest.fixture(scope="module")
def published() -> list[Run]:
    return read_runs(DOCS)


def test_published_study_is_whole(published: list[Run]) -> None:
    settings = {(one.kind, one.depth) for one in published}
    assert settings == {(kind, depth) for kind in ("plain", "residual") for depth in (20, 44, 56)}
    assert {len(one.training_error) for one in published} == {EPOCHS}


def test_page_and_drawing_say_what_was_measured(published: list[Run]) -> None:
    assert (DOCS / "depth.svg").read_text() == draw(published)
    assert table(published) in (DOCS / "depth.md").read_text()
