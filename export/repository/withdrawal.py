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
    """Withdraws the highest version; returns its name, and the name of the highest one now.

    Raises:
        RepositoryError: there is no version to withdraw, or none would be left.
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
    """Restores a version; returns its name, and the name of the highest one now.

    Raises:
        RepositoryError: it does not exist, or is not withdrawn.
    """
    match = VERSION.fullmatch(version.removesuffix(WITHDRAWN))
    if not match or match["suffix"]:
        raise RepositoryError(
            f"{version!r} is not a version: name one as NAME.vN, such as lenet5.v2."
        )
    name, number = match["name"], int(match["number"])
    _require(repository, name)
    with lock_versions(repository, name):
        withdrawn = version_numbers(repository, name, WITHDRAWN)
        if number not in withdrawn:
            choices = ", ".join(f"{name}.v{choice}" for choice in withdrawn) or "none"
            is_published = number in version_numbers(repository, name)
            raise RepositoryError(
                f"{name}.v{number} is not withdrawn, it is published."
                if is_published
                else f"There is no {name}.v{number} in {repository}; withdrawn: {choices}."
            )
        _rename(repository, name, number, WITHDRAWN, PUBLISHED)
        return f"{name}.v{number}", f"{name}.v{version_numbers(repository, name)[-1]}"


def _rename(repository: Path, name: str, number: int, old: str, new: str) -> None:
    target = version_path(repository, name, number, new)
    if target.exists():
        raise RepositoryError(f"{target} exists already: delete the wrong one of the two.")
    version_path(repository, name, number, old).rename(target)


def _require(repository: Path, name: str) -> None:
    """Checked before the lock is taken, which would leave a file for a name that does not exist."""
    if not repository.is_dir():
        raise RepositoryError(
            f"There is no model repository at {repository}: name one with --repository or "
            "CONVOY_REPOSITORY."
        )
    known = model_names(repository)
    if name in known:
        return
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"{'nearest' if nearest else 'there are'}: {', '.join(nearest or sorted(known))}"
    raise RepositoryError(
        f"{repository} has no model {name!r}; {hint if known else 'it is empty'}."
    )
