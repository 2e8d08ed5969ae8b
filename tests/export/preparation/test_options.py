"""The options of preparation, as a command gets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from export.errors import PreparationError
from export.option_groups import with_groups
from export.preparation.given import Given
from export.preparation.options import AS_PUBLISHED, PreparationOptions

TYPED = (
    "--resize 300 --crop 0.875 --interpolation bicubic --no-antialias --resize-mode pad "
    "--mean 0.1,0.2,0.3 --std 0.5 --channels bgr --fill 1,2,3"
)


def parse(words: str) -> PreparationOptions:
    parsed: list[PreparationOptions] = []

    @with_groups
    def command(
        name: Annotated[str, typer.Argument()] = "x",
        other: Annotated[int, typer.Option("--another-name")] = 0,
        preparation: PreparationOptions = AS_PUBLISHED,
    ) -> None:
        """What it does."""
        assert (name, other) == ("thing", 3)
        parsed.append(preparation)

    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, ["thing", "--another-name", "3", *words.split()])
    assert done.exit_code == 0, done.output
    return parsed[0]


def test_a_command_gets_them_beside_its_own() -> None:
    assert parse("") == AS_PUBLISHED
    assert AS_PUBLISHED.given == Given()
    assert AS_PUBLISHED.words == []
    assert parse(TYPED).given == Given(
        resize=300,
        crop_fraction=0.875,
        interpolation="bicubic",
        antialias=False,
        resize_mode="pad",
        mean=(0.1, 0.2, 0.3),
        std=(0.5, 0.5, 0.5),
        channels="bgr",
        fill=(1, 2, 3),
    )
    assert parse("--antialias --crop 224").given == Given(antialias=True, crop=224)


def test_its_words_say_the_same_again() -> None:
    again = " ".join(parse(TYPED).words)
    assert parse(again) == parse(TYPED)


def test_a_file_is_named_without_its_folder_and_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    preset = {"resize_size": 256, "crop_size": 224, "mean": [0, 0, 0], "std": [1, 1, 1]}
    path.write_text(json.dumps(preset))
    options = PreparationOptions(preprocessing=path, interpolation="area")
    assert options.words == ["--interpolation", "area", "--preprocessing", "config.json"]
    assert (options.given.resize, options.given.interpolation) == (256, "area")
    before = options.file_sha256
    path.write_text(json.dumps(preset | {"resize_size": 232}))
    assert options.file_sha256 != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (PreparationOptions(crop="half"), "--crop is 'half', must be pixels, such as 224"),
        (PreparationOptions(crop="224.5"), "--crop is 224.5, must be whole pixels"),
        (PreparationOptions(mean="a,b,c"), "--mean is 'a,b,c', must be three numbers"),
        (PreparationOptions(std="1,2"), "std is 1, 2, must be three numbers"),
        (PreparationOptions(preprocessing=Path("no.json")), r"no\.json cannot be read"),
    ],
)
def test_a_value_that_is_none_is_named(options: PreparationOptions, message: str) -> None:
    with pytest.raises(PreparationError, match=message):
        options.given  # noqa: B018
