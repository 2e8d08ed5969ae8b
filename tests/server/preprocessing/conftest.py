"""The zoo of image files, for the tests of this folder."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def zoo() -> ModuleType:
    return importlib.import_module("tests.server.preprocessing.zoo")
