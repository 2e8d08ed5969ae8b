"""Makes `python export/build.py …` work from a bare checkout, in any folder, with any Python.

A script begins with

    if not __package__:  # run by its path, not imported
        sys.path[0] = str(Path(__file__).resolve().parents[1])
        from export.bootstrap import continue_in_venv

        continue_in_venv()

and continues in the checkout's `.venv` if the Python that runs it lacks a package. This file, and
what a script has above these lines, must run on Python 3.8 with the standard library alone.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
_FOR_HELP = ("typer", "rich", "convoy")
_FOR_WORK = (
    "torch",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "safetensors",
    "tritonclient",
    "sklearn",
    "skimage",
)
# `-X continued` marks the Python that a script continues in, so that it never continues again.
_CONTINUED = "continued"


def continue_in_venv() -> None:
    """Continue here if all packages are installed, else in `.venv`; else exit with the remedy."""
    help_is_enough = "--help" in sys.argv
    missing = _missing(_FOR_HELP if help_is_enough else _FOR_HELP + _FOR_WORK)
    if not missing:
        return
    python = ROOT / ".venv" / "bin" / "python"
    if _CONTINUED not in sys._xoptions and python.exists():
        os.execv(python, [str(python), "-X", _CONTINUED, *sys.argv])
    _exit(missing)


def require_packages() -> None:
    """For `convoy build` and the like: exit with the remedy unless all packages are installed."""
    missing = _missing(_FOR_HELP + _FOR_WORK)
    if missing:
        _exit(missing)


def _missing(packages: tuple[str, ...]) -> list[str]:
    python = [] if sys.version_info >= (3, 11) else ["Python 3.11"]
    return python + [name for name in packages if find_spec(name) is None]


def _exit(missing: list[str]) -> NoReturn:
    """Exit with status 1 and one sentence."""
    checkout = (ROOT / "pyproject.toml").exists()
    setup = f"make setup-export` in {ROOT}" if checkout else "pip install 'convoy-serving[export]'`"
    sys.exit(f"Not installed: {', '.join(missing)}; run `{setup}, then try again.")
