import dataclasses
from pathlib import Path

import pytest
import typer
from PIL import Image

from export import options as module
from export.build import build
from export.catalog import find
from export.options import Options
from export.preparation.options import PreparationOptions


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(find("lenet5"), "fp16", "random", 3, tmp_path)


def test_command_makes_it_again_and_names_no_path(options: Options) -> None:
    assert options.command == ("python export/build.py lenet5 --fp16 --weights random --seed 3")
    named = dataclasses.replace(options, precision="fp32", weights="/home/me/my weights.pth")
    assert named.command == "python export/build.py lenet5 --weights 'my weights.pth'"


def test_command_has_all_that_decides_the_version(tmp_path: Path) -> None:
    options = Options(
        find("resnet50"),
        "int8",
        "f.pth",
        0,
        tmp_path,
        labels=Path("/home/me/flowers.txt"),
        weights_key="state_dict_ema",
        transform_input=False,
        activation="sigmoid",
        published_as="my-flowers",
        format="plan",
        calibration=Path("/home/me/pictures"),
        max_batch=64,
        opt_batch=32,
        optimization_level=0,
        preparation=PreparationOptions(resize=256, antialias=False),
    )
    assert options.command == (
        "python export/build.py resnet50 --int8 --calibration pictures --format plan "
        "--weights f.pth --weights-key state_dict_ema --activation sigmoid --labels flowers.txt "
        "--name my-flowers --max-batch 64 --opt-batch 32 --optimization-level 0 "
        "--no-transform-input --resize 256 --no-antialias"
    )
    app = typer.Typer()
    app.command()(build)
    options_of_it = typer.main.get_command(app).params
    flags = {flag for it in options_of_it for flag in (*it.opts, *it.secondary_opts)}
    assert {word for word in options.command.split() if word.startswith("--")} <= flags


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "fp32"},
        {"seed": 4},
        {"weights": "digits"},
        {"max_batch": 4},
        {"format": "plan"},
        {"format": "plan", "opt_batch": 4},
        {"published_as": "other"},
        {"weights_key": "state_dict_ema"},
        {"transform_input": True},
        {"transform_input": False},
        {"activation": "sigmoid"},
        {"network": find("plain20_digits")},
        {"network": dataclasses.replace(find("lenet5"), fp32_tolerance=1.0)},
        {"preparation": PreparationOptions(antialias=True)},
    ],
    ids=" and ".join,
)
def test_another_option_is_another_build(options: Options, change: dict[str, object]) -> None:
    assert dataclasses.replace(options, **change).sha256 != options.sha256  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "batch_sizes"),
    [
        ({}, (8, 8)),
        ({"format": "rtx"}, (8, 8)),
        ({"format": "plan"}, (64, 32)),
        ({"format": "plan", "max_batch": 16}, (16, 16)),
        ({"format": "plan", "max_batch": 128, "opt_batch": 128}, (128, 128)),
    ],
    ids=str,
)
def test_a_plan_takes_the_batches_of_a_gpu(
    options: Options, change: dict[str, object], batch_sizes: tuple[int, int]
) -> None:
    changed = dataclasses.replace(options, **change)  # type: ignore[arg-type]
    assert (changed.max_batch_size, changed.opt_batch_size) == batch_sizes


def test_where_it_goes_and_what_is_kept_is_no_other_build(options: Options, tmp_path: Path) -> None:
    same = dataclasses.replace(options, repository=tmp_path / "other", keep=2, force=True)
    assert same.sha256 == options.sha256


@pytest.mark.parametrize("kind", ["weights", "labels", "calibration"])
def test_another_content_is_another_build(options: Options, kind: str, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    files = {
        "weights": tmp_path / "w.pth",
        "labels": tmp_path / "l.txt",
        "calibration": tmp_path / "pictures" / "a.png",
    }
    for path in files.values():
        Image.new("L", (8, 8), 0).save(path, "PNG")
    options = dataclasses.replace(
        options,
        precision="int8",
        weights=str(files["weights"]),
        labels=files["labels"],
        calibration=tmp_path / "pictures",
    )
    before = options.sha256
    Image.new("L", (8, 8), 255).save(files[kind], "PNG")
    assert dataclasses.replace(options).sha256 != before
    assert (dataclasses.replace(options).source_sha256 == options.source_sha256) == (
        kind == "calibration"
    )


@pytest.mark.parametrize("changed", ["code_sha256", "package_versions"])
def test_other_code_or_packages_are_another_build(
    options: Options, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = options.sha256
    monkeypatch.setattr(module, changed, lambda: {"torch": "0"})
    assert dataclasses.replace(options).sha256 != before


@pytest.mark.parametrize(
    "change",
    [{"weights_key": "state_dict_ema"}, {"transform_input": False}, {"activation": "sigmoid"}],
    ids=" and ".join,
)
def test_what_changes_the_graph_is_another_source(
    options: Options, change: dict[str, object]
) -> None:
    changed = dataclasses.replace(options, **change)  # type: ignore[arg-type]
    assert changed.source_sha256 != options.source_sha256
