import ast
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from export.bootstrap import ROOT

SYSTEM_PYTHON = Path("/usr/bin/python3")
SCRIPTS = ("train.py", "build.py")

needs_system_python = pytest.mark.skipif(
    not SYSTEM_PYTHON.exists(), reason="needs a Python without our packages at /usr/bin/python3"
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what a script needs, without a virtual environment."""
    folder = tmp_path / "a checkout"  # a space, since people have them
    shutil.copytree(ROOT / "export", folder / "export", ignore=shutil.ignore_patterns("weights"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def without(package: str, folder: Path) -> None:
    """A virtual environment with everything that the tests have, but for one package."""
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for found in Path(sysconfig.get_path("purelib")).iterdir():
        if found.name.partition("-")[0] != package:
            (site / found.name).symlink_to(found)


def run(python: Path | str, script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), os.path.relpath(script, script.anchor), *arguments],
        cwd=script.anchor,  # any working directory will do
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@needs_system_python
@pytest.mark.parametrize("script", SCRIPTS)
def test_bare_python_continues_in_the_checkouts_venv(checkout: Path, script: str) -> None:
    (checkout / ".venv").symlink_to(sys.prefix)
    result = run(SYSTEM_PYTHON, checkout / "export" / script, "lenet55")
    assert result.returncode == 2
    assert "did you mean lenet5" in result.stderr


@needs_system_python
@pytest.mark.parametrize("script", SCRIPTS)
def test_bare_python_without_a_venv_is_told_the_command(checkout: Path, script: str) -> None:
    result = run(SYSTEM_PYTHON, checkout / "export" / script, "lenet5")
    assert result.returncode == 1
    (sentence,) = result.stderr.splitlines()
    assert "torch" in sentence
    assert f"`make setup-export` in {checkout}" in sentence


@pytest.mark.parametrize("script", SCRIPTS)
def test_venv_without_torch_is_told_the_command_and_still_gives_help(
    checkout: Path, script: str
) -> None:
    without("torch", checkout / ".venv")
    python = checkout / ".venv" / "bin" / "python"
    result = run(python, checkout / "export" / script, "lenet5")
    assert result.returncode == 1
    assert result.stderr.startswith("Not installed: torch; run `make setup-export`")

    result = run(python, checkout / "export" / script, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"export/{script} lenet5" in result.stdout


def test_venv_that_is_broken_does_not_loop(checkout: Path) -> None:
    # Not a virtual environment: whatever this Python lacks, the one in "it" lacks too.
    python = checkout / ".venv" / "bin" / "python"
    venv.create(checkout / "bare", symlinks=True)
    python.parent.mkdir(parents=True)
    python.symlink_to((checkout / "bare" / "bin" / "python").resolve())
    result = run(python, checkout / "export" / "train.py", "lenet5")
    assert result.returncode == 1
    assert result.stderr.count("make setup-export") == 1


def test_command_without_torch_is_told_the_command(checkout: Path) -> None:
    without("torch", checkout / ".venv")
    call = "from export.train import train; train('lenet5')"
    result = subprocess.run(
        [checkout / ".venv" / "bin" / "python", "-c", call],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert f"Not installed: torch; run `make setup-export` in {checkout}" in result.stderr


def test_installed_without_a_checkout_is_told_what_to_install(checkout: Path) -> None:
    (checkout / "pyproject.toml").unlink()
    without("torch", checkout / ".venv")
    result = run(checkout / ".venv" / "bin" / "python", checkout / "export" / "train.py", "lenet5")
    assert "pip install 'convoy-serving[export]'" in result.stderr


@pytest.mark.parametrize("file", ["__init__.py", "bootstrap.py", *SCRIPTS])
def test_old_pythons_can_read_it(file: str) -> None:
    ast.parse((ROOT / "export" / file).read_text(encoding="utf-8"), feature_version=(3, 8))
