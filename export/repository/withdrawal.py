"""Withdrawing a version, and restoring it: one rename each, and the gateways follow.

    NAME.vN  ── withdraw ──▶  NAME.vN.withdrawn  ── restore ──▶  NAME.vN

No file names the version that is served: gateways serve the highest one that has proven itself. So
the highest version gets a name that nothing serves, and its number is never used for another one.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from export.errors import RepositoryError
from export.repository.layout import (
    PUBLISHED,
    VERSION,
    WITHDRAWN,
    lock_versions,
    model_names,
    version_numbers,
    version_path,
)


def withdraw(repository: Path, name: str) -> tuple[str, str]:
    """The version that went, and the one that is the highest now.

    Raises:
        RepositoryError: there is none to withdraw, or none would be left.
    """
    _require(repository, name)
    with lock_versions(repository, name):
        published = version_numbers(repository, name)
        if len(published) < 2:
            raise RepositoryError(
                f"{name}.v{published[0]} is the only version of {name} in {repository}: build or "
                "restore another one first."
                if published
                else f"All versions of {name} in {repository} are withdrawn already."
            )
        below, highest = published[-2:]
        _rename(repository, name, highest, PUBLISHED, WITHDRAWN)
    return f"{name}.v{highest}", f"{name}.v{below}"


def restore(repository: Path, version: str) -> tuple[str, str]:
    """The version that came back, and the one that is the highest now.

    Raises:
        RepositoryError: it is not there, or is not withdrawn.
    """
    match = VERSION.fullmatch(version.removesuffix(WITHDRAWN))
    if not match or match["suffix"]:
        raise RepositoryError(f"{version!r} is no version: name one as NAME.vN, such as lenet5.v2.")
    name, number = match["name"], int(match["number"])
    _require(repository, name)
    with lock_versions(repository, name):
        withdrawn = version_numbers(repository, name, WITHDRAWN)
        if number not in withdrawn:
            there = ", ".join(f"{name}.v{each}" for each in withdrawn) or "none"
            served = number in version_numbers(repository, name)
            raise RepositoryError(
                f"{name}.v{number} is not withdrawn, it is published."
                if served
                else f"There is no {name}.v{number} in {repository}; withdrawn: {there}."
            )
        _rename(repository, name, number, WITHDRAWN, PUBLISHED)
        return f"{name}.v{number}", f"{name}.v{version_numbers(repository, name)[-1]}"


def _rename(repository: Path, name: str, number: int, old: str, new: str) -> None:
    to = version_path(repository, name, number, new)
    if to.exists():
        raise RepositoryError(f"{to} is there already: delete the one of the two that is wrong.")
    version_path(repository, name, number, old).rename(to)


def _require(repository: Path, name: str) -> None:
    """Before there is a lock: nothing is left behind for a name that nobody has."""
    if not repository.is_dir():
        raise RepositoryError(
            f"There is no model repository at {repository}: name one with --repository or "
            "CONVOY_REPOSITORY."
        )
    here = model_names(repository)
    if name in here:
        return
    nearest = difflib.get_close_matches(name, here, n=3, cutoff=0.5)
    known = f"{'nearest' if nearest else 'there are'}: {', '.join(nearest or sorted(here))}"
    raise RepositoryError(
        f"{repository} has no model {name!r}; {known if here else 'it is empty'}."
    )
