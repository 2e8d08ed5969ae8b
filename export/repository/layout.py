"""The model repository: its folders, their names, and the locks that protect them.

    NAME.vN/   config.pbtxt   for Triton; parameters["convoy.v1.Model"] has all other facts
               labels.txt     one per line, for Triton's own classification extension
               1/model.onnx   or 1/model.plan

A build makes the whole folder as `NAME.vN.staging`, which nothing serves, and publishes it with one
rename to `NAME.vN`, whose number was never used before. A published folder never changes; it can
be withdrawn, by a rename to `NAME.vN.withdrawn`, or deleted once it is old.

Beside the folders are files that nothing serves:

    .NAME.lock      held while a number is chosen, and while anything is renamed or deleted
    .NAME.vN.lock   held by the build that makes NAME.vN while it runs, so that the next build can
                    tell a running build's folder from one that a killed build left
    .NAME.highest   the highest number ever published
"""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from export.errors import RepositoryError
from export.files import ROOT

CHECKOUTS_REPOSITORY = ROOT / "model_repository"
CONFIG_FILE, LABELS_FILE = "config.pbtxt", "labels.txt"
# By the format that the manifest names.
MODEL_FILES = {"onnx": Path("1", "model.onnx"), "plan": Path("1", "model.plan")}

# The state of a folder, by the suffix after NAME.vN. Only the first is served.
PUBLISHED, WITHDRAWN, STAGING, REPLACED, DELETED = (
    "",
    ".withdrawn",
    ".staging",
    ".replaced",
    ".deleted",
)
LOCK = ".lock"
VERSION = re.compile(
    r"\.?(?P<name>[a-z0-9][a-z0-9_-]*)\.v(?P<number>[1-9][0-9]*)(?P<suffix>(\.[a-z]+)?)"
)
LOCK_TIMEOUT_S = 60.0  # it is held for as long as a few renames and deletions take
# The operating system's numbers for a full or read-only disk.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def default_repository() -> Path:
    return CHECKOUTS_REPOSITORY if CHECKOUTS_REPOSITORY.is_dir() else Path("model_repository")


# ------------------------------------------------------------------------------ versions


def version_path(repository: Path, name: str, number: int, suffix: str = PUBLISHED) -> Path:
    return repository / f"{name}.v{number}{suffix}"


def version_numbers(repository: Path, name: str, suffix: str = PUBLISHED) -> list[int]:
    """The numbers of all versions in this state, ascending."""
    return [number for number, form in list_forms(repository, name) if form == suffix]


def highest_published(repository: Path, name: str) -> Path | None:
    """The folder of the highest version, which gateways try first; None if there is none."""
    published = version_numbers(repository, name) if repository.is_dir() else []
    return version_path(repository, name, published[-1]) if published else None


def highest_number(repository: Path, name: str) -> int:
    """The highest number ever used: published, withdrawn, staged, or deleted by hand; 0 if none.

    Numbers are not used again: a gateway would mistake a new folder for the version it has loaded.
    """
    given = [number for number, _ in list_forms(repository, name)]
    return max(_remembered(repository, name), *given, 0)


def model_names(repository: Path) -> set[str]:
    """The names of the models that have a version here, withdrawn or not."""
    matches = [VERSION.fullmatch(path.name) for path in repository.iterdir()]
    return {match["name"] for match in matches if match and match["suffix"] in ("", WITHDRAWN)}


def list_forms(repository: Path, name: str) -> list[tuple[int, str]]:
    """Number and suffix of all folders and locks of this name's versions, ascending."""
    matches = [VERSION.fullmatch(path.name) for path in repository.iterdir()]
    return sorted(
        (int(match["number"]), match["suffix"])
        for match in matches
        if match and match["name"] == name
    )


def model_file(folder: Path) -> Path | None:
    """The ONNX file or the plan of a version; None where it has neither."""
    paths = (folder / file for file in MODEL_FILES.values())
    return next((path for path in paths if path.is_file()), None)


# ------------------------------------------------------------------------------ locks


@contextlib.contextmanager
def lock_versions(repository: Path, name: str) -> Iterator[None]:
    """Locks the versions of this name, and first clears what killed builds have left.

    Raises:
        RepositoryError: the repository cannot be written, or another command keeps the lock.
    """
    lock = FileLock(repository / f".{name}{LOCK}", timeout=LOCK_TIMEOUT_S)
    try:
        with disk_errors(f"Cannot write to the model repository {repository}"), lock:
            _clear(repository, name)
            yield
    except Timeout as error:
        raise RepositoryError(
            f"Another command has held {lock.lock_file} for {LOCK_TIMEOUT_S:.0f} s: wait until it "
            "has ended."
        ) from error


@contextlib.contextmanager
def disk_errors(what: str, only: Sequence[int] = ()) -> Iterator[None]:
    """Turns errors of the disk, all or those of these numbers, into one sentence.

    Raises:
        RepositoryError: the disk reported one.
    """
    try:
        yield
    except Timeout:
        raise
    except OSError as error:
        if only and error.errno not in only:
            raise
        raise RepositoryError(
            f"{what}: {error.strerror or error}; fix that, or name another repository with "
            "--repository or CONVOY_REPOSITORY."
        ) from error


def build_lock(repository: Path, name: str, number: int) -> BaseFileLock:
    return FileLock(repository / f".{name}.v{number}{LOCK}", timeout=0)


def _clear(repository: Path, name: str) -> None:
    """Deletes what no running build owns; call with the name's lock held."""
    numbers = {
        number
        for number, form in list_forms(repository, name)
        if form not in (PUBLISHED, WITHDRAWN)
    }
    for number in numbers:
        lock = build_lock(repository, name, number)
        with contextlib.suppress(Timeout), lock:  # held by a running build
            published, replaced, *others = (
                version_path(repository, name, number, form)
                for form in (PUBLISHED, REPLACED, STAGING, DELETED)
            )
            if replaced.exists() and not published.exists():
                replaced.rename(published)  # killed between the two renames
            for folder in (replaced, *others):
                if folder.exists():
                    shutil.rmtree(folder)
            Path(lock.lock_file).unlink()


def remember_number(repository: Path, name: str, number: int) -> None:
    path = repository / f".{name}.highest"
    new_path = path.with_suffix(".new")
    new_path.write_text(str(max(number, _remembered(repository, name))))
    new_path.replace(path)


def _remembered(repository: Path, name: str) -> int:
    """0 if nothing was published yet, as in a fresh clone."""
    try:
        return int((repository / f".{name}.highest").read_text())
    except (FileNotFoundError, ValueError):
        return 0
