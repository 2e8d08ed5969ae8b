"""Withdrawing a version and restoring it, one rename each, and deleting a model; gateways follow.

    NAME.vN  ── withdraw ──▶  NAME.vN.withdrawn  ── restore ──▶  NAME.vN

No file names the version that is served: gateways serve the highest one that has proven itself. So
the highest version gets a name that nothing serves, and its number is never used for another one.
"""

from __future__ import annotations

import difflib
import shutil
from pathlib import Path

from export.errors import RepositoryError
from export.repository.layout import (
    DELETED,
    PUBLISHED,
    STAGING,
    VERSION,
    WITHDRAWN,
    highest_number,
    list_forms,
    lock_versions,
    model_names,
    remember_number,
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


def list_versions(repository: Path, name: str) -> list[str]:
    """The folders of a model that `remove` deletes, ascending.

    Raises:
        RepositoryError: there is no such model.
    """
    _require(repository, name)
    return [
        version_path(repository, name, number, suffix).name
        for number, suffix in list_forms(repository, name)
        if suffix in (PUBLISHED, WITHDRAWN)
    ]


def remove(repository: Path, name: str) -> list[str]:
    """Deletes all versions of a model, withdrawn ones too, and returns their folders' names.

    Its numbers are not used again: a gateway would mistake a new folder for one that it has loaded.

    Raises:
        RepositoryError: there is no such model, or a build of it is running.
    """
    _require(repository, name)
    with lock_versions(repository, name):
        building = version_numbers(repository, name, STAGING)
        if building:
            raise RepositoryError(
                f"{name}.v{building[0]} is being built in {repository}: wait until that has ended."
            )
        remember_number(repository, name, highest_number(repository, name))
        folders = list_versions(repository, name)
        # Each first gets a name that nothing serves, the highest last: a kill leaves no partial
        # version, and no lower version answers for a moment.
        for folder in folders:
            path = repository / folder
            deleted = path.with_name(f"{folder.removesuffix(WITHDRAWN)}{DELETED}")
            shutil.rmtree(path.rename(deleted))
    return folders


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
