"""The code of another checkout, to be measured beside this one's."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType


def load(checkout: Path, *names: str) -> list[ModuleType]:
    """Imports modules of `server` of a checkout, beside any that were imported before."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "server"]:
        del sys.modules[name]
    sys.path.insert(0, str(checkout))
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        del sys.path[0]
