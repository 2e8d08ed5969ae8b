"""What `from convoy import …` promises."""

from __future__ import annotations

import inspect

import convoy
from convoy import client, errors, evidence


def test_the_names_that_the_client_exports_are_complete_and_sorted() -> None:
    """All public classes and defaults of its modules, constants first, as ruff sorts them."""
    public = {
        name
        for module in (client, errors, evidence)
        for name, value in vars(module).items()
        if (inspect.isclass(value) and value.__module__ == module.__name__)
        or name.startswith("DEFAULT_")
    }
    assert set(convoy.__all__) == public
    assert convoy.__all__ == sorted(public, key=lambda name: (not name.isupper(), name))
    assert all(hasattr(convoy, name) for name in convoy.__all__)
