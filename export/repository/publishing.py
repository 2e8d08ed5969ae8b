"""Staging a version, publishing it with one rename, and deleting old versions."""

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
    """A version that is being built."""

    folder: Path  # NAME.vN.staging
    published: Path  # NAME.vN, its later name
    replace: bool  # whether that exists and is rebuilt

    def publish(self) -> None:
        """Renames the folder; a version that is rebuilt is moved away just before.

        Raises:
            RepositoryError: the repository cannot be written, or the version exists already.
        """
        repository, (name, _, number) = self.published.parent, self.published.name.rpartition(".v")
        with lock_versions(repository, name):
            if self.published.exists() and not self.replace:
                raise RepositoryError(f"{self.published} exists already: build again.")
            remember_number(repository, name, int(number))
            aside = version_path(repository, name, int(number), REPLACED)
            if self.published.exists():
                self.published.rename(aside)
            self.folder.rename(self.published)
            shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def staging(repository: Path, name: str, *, replace: bool = False) -> Iterator[Staging]:
    """A fresh staging folder for the next version, or (`replace`) for the highest one.

    It is deleted unless it was published when the block ends. Concurrent builds of one model get
    different numbers.

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
        with disk_errors(f"Cannot write {staged.folder} or a stage in the cache", only=DISK_FULL):
            yield staged
    finally:
        shutil.rmtree(staged.folder, ignore_errors=True)
        # The lock's file reserves the number, so it is deleted after the folder.
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def _begin(repository: Path, name: str, *, replace: bool) -> tuple[Staging, BaseFileLock]:
    """Chooses a number and takes its lock before the folder exists: no other command ever sees a
    running build's folder unlocked. Call with the name's lock held."""
    published = version_numbers(repository, name)
    is_rebuild = replace and bool(published)
    number = published[-1] if is_rebuild else highest_number(repository, name) + 1
    lock = build_lock(repository, name, number)
    try:
        lock.acquire()
    except Timeout as error:
        raise RepositoryError(
            f"Another build of {name}.v{number} is running in {repository}: wait until it is done."
        ) from error
    folder = version_path(repository, name, number, STAGING)
    return Staging(folder, version_path(repository, name, number), is_rebuild), lock


def prune(repository: Path, name: str, keep: int) -> list[str]:
    """Deletes versions below the `keep` highest published ones, and returns their names.

    Withdrawn versions do not count; they are deleted if they are lower than all that stay.

    Raises:
        RepositoryError: fewer than two would stay, or the repository cannot be written.
    """
    if keep < 2:
        raise RepositoryError(
            f"At least 2 versions must be kept, so that a rollback is possible; got {keep}."
        )
    deleted = []
    with lock_versions(repository, name):
        kept = version_numbers(repository, name)[-keep:]
        for number, suffix in list_forms(repository, name):
            if suffix in (PUBLISHED, WITHDRAWN) and len(kept) == keep and number < kept[0]:
                folder = version_path(repository, name, number, suffix)
                # First a name that nothing serves: a kill leaves no partial version.
                shutil.rmtree(folder.rename(version_path(repository, name, number, DELETED)))
                deleted.append(folder.name)
    return deleted
