"""Generated files are up to date, and versions agree. `make check` runs this file."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
STUBS = ROOT / "clients" / "python" / "convoy" / "v1"
LOCK = ROOT / "requirements" / "serve.txt"


def project(manifest: str) -> dict[str, object]:
    facts: dict[str, object] = tomllib.loads((ROOT / manifest).read_text("utf-8"))["project"]
    return facts


@pytest.mark.parametrize(
    ("script", "file", "command"),
    [
        ("docs/write_commands.py", "docs/commands.md", "make docs"),
        ("protocol/write_openapi.py", "server/http_api/openapi.json", "make protocol"),
    ],
)
def test_a_generated_file_is_what_its_script_prints(script: str, file: str, command: str) -> None:
    words = [sys.executable, script, "--print"]
    printed = subprocess.run(words, cwd=ROOT, capture_output=True, check=True).stdout
    assert (ROOT / file).read_bytes() == printed, f"run `{command}`"


@pytest.mark.parametrize(
    ("script", "file"),
    [
        ("docs/write_models.py", "docs/models.md"),
        ("docs/write_catalog.py", "server/page/static/catalog.json"),
    ],
)
def test_a_file_about_the_networks_is_what_its_script_prints(
    script: str,
    file: str,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    """In this process: the two share torch, and the descriptions of all networks."""
    monkeypatch.setattr(sys, "argv", [script, "--print"])
    monkeypatch.setattr(sys, "path", sys.path.copy())  # the scripts change it
    runpy.run_path(str(ROOT / script), run_name="__main__")
    assert (ROOT / file).read_bytes() == capsysbinary.readouterr().out, "run `make docs`"


def test_the_page_has_the_javascript_client() -> None:
    client = (ROOT / "clients" / "javascript" / "convoy.js").read_bytes()
    assert (ROOT / "server" / "page" / "static" / "convoy.js").read_bytes() == client, "make docs"


def test_the_stubs_are_those_of_the_contract(tmp_path: Path) -> None:
    outputs = ("--python_out", "--pyi_out", "--grpc_python_out")
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", "protocol"]
    command += [f"{output}={tmp_path}" for output in outputs]
    subprocess.run([*command, "protocol/convoy/v1/classifier.proto"], cwd=ROOT, check=True)
    generated = sorted((tmp_path / "convoy" / "v1").iterdir())
    assert len(generated) == 3
    for path in generated:
        assert (STUBS / path.name).read_bytes() == path.read_bytes(), "run `make protocol`"


def test_the_lock_names_no_index_and_hashes_everything() -> None:
    lock = LOCK.read_text()
    assert "://" not in lock and "+" not in re.sub(r"--hash=\S+", "", lock)
    requirements = re.findall(r"^[a-z].*?(?=^[a-z]|\Z)", lock, re.MULTILINE | re.DOTALL)
    assert len(requirements) > 30
    assert all("--hash=sha256:" in requirement for requirement in requirements)
    assert "torch" not in lock


def test_the_lock_has_what_serving_requires() -> None:
    locked = defaultdict(set)
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", LOCK.read_text(), re.MULTILINE):
        locked[name].add(version)
    for requirement in requirements("serve"):
        assert any(map(requirement.specifier.contains, locked[requirement.name])), (
            f"requirements/serve.txt does not satisfy {requirement}: run `make lock`"
        )


def requirements(extra: str) -> Iterator[Requirement]:
    """Those of an extra of pyproject.toml, of the extras that it includes, and of every part."""
    facts = project("pyproject.toml")
    extras, dependencies = facts["optional-dependencies"], facts["dependencies"]
    assert isinstance(extras, dict) and isinstance(dependencies, list)
    for requirement in map(Requirement, [*dependencies, *extras[extra]]):
        if requirement.name == facts["name"]:
            for included in requirement.extras:
                yield from requirements(included)
        elif requirement.name != "convoy-client":  # of this checkout, so not in the lock
            yield requirement


def test_the_distributions_have_one_version() -> None:
    server, client = project("pyproject.toml"), project("clients/python/pyproject.toml")
    package = json.loads((ROOT / "clients/javascript/package.json").read_text(encoding="utf-8"))
    assert server["version"] == client["version"] == package["version"], "RELEASE.md, step 2"
