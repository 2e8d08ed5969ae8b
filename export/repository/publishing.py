"""Making a version aside, publishing it by one rename, and deleting the old ones."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import BaseFileLock, Timeout

from export.errors import RepositoryError
from export.repository.layout import (
    DELETED,
    DISK_FULL,
    PUBLISHED,
    REPLACED,
    STAGING,
    WITHDRAWN,
    build_lock,
    disk_errors,
    highest_number,
    list_forms,
    lock_versions,
    remember_number,
    version_numbers,
    version_path,
)


@dataclass
class Staging:
    """A version in the making."""

    folder: Path  # NAME.vN.staging
    published: Path  # NAME.vN, where it will be
    replace: bool  # whether that is there already, to be rebuilt

    def publish(self) -> None:
        """One rename; one that is rebuilt steps aside just before.

        Raises:
            RepositoryError: the repository cannot be written, or the version is there already.
        """
        repository, (name, _, number) = self.published.parent, self.published.name.rpartition(".v")
        with lock_versions(repository, name):
            if self.published.exists() and not self.replace:
                raise RepositoryError(f"{self.published} is there already: build once more.")
            remember_number(repository, name, int(number))
            aside = version_path(repository, name, int(number), REPLACED)
            if self.published.exists():
                self.published.rename(aside)
            self.folder.rename(self.published)
            shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def staging(repository: Path, name: str, *, replace: bool = False) -> Iterator[Staging]:
    """A fresh staging folder for the next version, or for the highest one anew (`replace`).

    What is not published when the block ends is deleted. Builds of one model at once get a number
    each.

    Raises:
        RepositoryError: the repository cannot be written or is full, or another build replaces the
            same version.
    """
    with disk_errors(f"Cannot write to the model repository {repository}"):
        repository.mkdir(parents=True, exist_ok=True)
    with lock_versions(repository, name):
        staged, lock = _begin(repository, name, replace=replace)
    try:
        with disk_errors(f"Cannot write to the model repository {repository}"):
            (staged.folder / "1").mkdir(parents=True)
        with disk_errors(f"Cannot make {staged.folder}, or what it is made of", only=DISK_FULL):
            yield staged
    finally:
        shutil.rmtree(staged.folder, ignore_errors=True)
        # While its file is there nobody takes the number, so the file goes after the folder.
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def _begin(repository: Path, name: str, *, replace: bool) -> tuple[Staging, BaseFileLock]:
    """A number, and its lock before there is a folder: nobody sees one of a build at work unlocked.
    To be called with the name's lock held."""
    published = version_numbers(repository, name)
    is_there = replace and bool(published)
    number = published[-1] if is_there else highest_number(repository, name) + 1
    lock = build_lock(repository, name, number)
    try:
        lock.acquire()
    except Timeout as error:
        raise RepositoryError(
            f"Another build of {name}.v{number} is at work in {repository}: wait until it is done."
        ) from error
    folder = version_path(repository, name, number, STAGING)
    return Staging(folder, version_path(repository, name, number), is_there), lock


def prune(repository: Path, name: str, keep: int) -> list[str]:
    """Deletes what is older than the `keep` highest published versions; the names of what went.

    Withdrawn versions do not count, and go when they are older than all that stay.

    Raises:
        RepositoryError: fewer than two would stay, or the repository cannot be written.
    """
    if keep < 2:
        raise RepositoryError(f"At least 2 versions stay, to have one to go back to; got {keep}.")
    deleted = []
    with lock_versions(repository, name):
        kept = version_numbers(repository, name)[-keep:]
        for number, suffix in list_forms(repository, name):
            if suffix in (PUBLISHED, WITHDRAWN) and len(kept) == keep and number < kept[0]:
                folder = version_path(repository, name, number, suffix)
                # First a name that nothing serves: a kill on the way leaves no half version.
                shutil.rmtree(folder.rename(version_path(repository, name, number, DELETED)))
                deleted.append(folder.name)
    return deleted
