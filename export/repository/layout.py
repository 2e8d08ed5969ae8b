"""The model repository: what a version's folder holds, and how it comes to be there.

    NAME.vN/   config.pbtxt   what Triton must know; parameters["convoy.v1.Model"]: all other facts
               labels.txt     one a line, for Triton's own classification extension
               1/model.onnx   or 1/model.plan

A build makes the whole folder as `NAME.vN.staging`, which nothing serves, and publishes it by one
rename to `NAME.vN`, a number that was never used before. A published folder never changes; it can
be withdrawn, which is a rename to `NAME.vN.withdrawn`, or deleted once it is old.

Beside the folders lie files that nothing serves either:

    .NAME.lock      held while a number is chosen, and while anything is renamed or deleted
    .NAME.vN.lock   held by the build that makes NAME.vN as long as it lives, so that the next one
                    tells the folder of a build at work from one that a killed build left
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

# What a folder is, by what its name has after NAME.vN. Only the first is served.
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
    """Of the versions that are there in this form, ascending."""
    return [number for number, form in list_forms(repository, name) if form == suffix]


def highest_published(repository: Path, name: str) -> Path | None:
    """The folder that gateways try first; None where there is none."""
    published = version_numbers(repository, name) if repository.is_dir() else []
    return version_path(repository, name, published[-1]) if published else None


def highest_number(repository: Path, name: str) -> int:
    """The highest number ever given: withdrawn, in the making, deleted by hand; 0 where there is
    none. A gateway would take a folder of a number that it has loaded for what it has loaded."""
    given = [number for number, _ in list_forms(repository, name)]
    return max(_remembered(repository, name), *given, 0)


def model_names(repository: Path) -> set[str]:
    """Of the models that have a version here, withdrawn or not."""
    matches = [VERSION.fullmatch(path.name) for path in repository.iterdir()]
    return {match["name"] for match in matches if match and match["suffix"] in ("", WITHDRAWN)}


def list_forms(repository: Path, name: str) -> list[tuple[int, str]]:
    """Number and suffix of all that is there of this name's versions, locks included; ascending."""
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
    """The versions of this name are one's own to rename and delete, for a moment; what killed
    builds have left is cleared before.

    Raises:
        RepositoryError: the repository cannot be written, or somebody does not let the lock go.
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
    """An error of the disk in one sentence: any, or those of these numbers."""
    try:
        yield
    except Timeout:
        raise
    except OSError as error:
        if only and error.errno not in only:
            raise
        raise RepositoryError(
            f"{what}: {error.strerror or error}; mend that, or name another repository with "
            "--repository or CONVOY_REPOSITORY."
        ) from error


def build_lock(repository: Path, name: str, number: int) -> BaseFileLock:
    return FileLock(repository / f".{name}.v{number}{LOCK}", timeout=0)


def _clear(repository: Path, name: str) -> None:
    """Deletes what nobody is at work on; called with the name's lock held."""
    left = {
        number
        for number, form in list_forms(repository, name)
        if form not in (PUBLISHED, WITHDRAWN)
    }
    for number in left:
        lock = build_lock(repository, name, number)
        with contextlib.suppress(Timeout), lock:  # held: by a build at work
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
    beside = path.with_suffix(".new")
    beside.write_text(str(max(number, _remembered(repository, name))))
    beside.replace(path)


def _remembered(repository: Path, name: str) -> int:
    """0 where nothing was published yet, as in a fresh clone."""
    try:
        return int((repository / f".{name}.highest").read_text())
    except (FileNotFoundError, ValueError):
        return 0
