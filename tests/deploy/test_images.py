"""The recipes of the images, checked without an engine."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.deploy.files import ROOT

RECIPES = sorted((ROOT / "deploy").glob("*.Dockerfile"))


def test_there_are_two() -> None:
    assert [path.name for path in RECIPES] == ["exporter.Dockerfile", "gateway.Dockerfile"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_hadolint_has_no_complaint(path: Path) -> None:
    command = [Path(sys.executable).with_name("hadolint"), path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_base_image_can_be_replaced(path: Path) -> None:
    recipe = path.read_text()
    assert "# syntax=" not in recipe
    bases = re.findall(r"^FROM (\S+)", recipe, re.MULTILINE)
    assert bases and all(re.fullmatch(r"\$\{\w+_IMAGE\}", base) for base in bases)


def test_the_gateways_image_runs_as_an_unprivileged_user() -> None:
    recipe = (ROOT / "deploy" / "gateway.Dockerfile").read_text()
    last = recipe.rpartition("\nFROM ")[2]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", last, re.MULTILINE)
    assert "torch" not in recipe and "ALLOW_UNAUTHENTICATED=true \\" not in recipe


def test_what_the_build_itself_uses_is_hashed_and_names_no_index() -> None:
    lock = (ROOT / "deploy" / "build.txt").read_text()
    assert "://" not in lock
    requirements = re.findall(r"^[a-z].*?(?=^[a-z]|\Z)", lock, re.MULTILINE | re.DOTALL)
    assert requirements and all("--hash=sha256:" in requirement for requirement in requirements)
    for pyproject in (ROOT / "pyproject.toml", ROOT / "clients" / "python" / "pyproject.toml"):
        required = tomllib.loads(pyproject.read_text())["build-system"]["requires"]
        names = {re.split(r"[<>=]", one)[0] for one in required}
        assert names <= {one.partition("==")[0] for one in requirements}


def test_a_build_sees_the_networks_that_ship_and_no_other() -> None:
    shipped = r"^!(?:model_repository/)?(\w+\.v\d+)/?$"
    seen = re.findall(shipped, (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    admitted = (ROOT / "model_repository" / ".gitignore").read_text()
    assert sorted(seen) == sorted(re.findall(shipped, admitted, re.MULTILINE))


def test_a_build_sees_nothing_that_was_not_named() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] != "#"]
    assert rules[0] == "*"
    for rule in rules:
        path = rule.removeprefix("!")
        assert not rule.startswith("!") or (ROOT / path).exists(), f"{path} does not exist"
