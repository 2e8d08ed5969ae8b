"""The checks of `convoy doctor` on a model repository: what else than versions is in it."""

from __future__ import annotations

import fcntl
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from export.doctor.folder import Finding, Repository, command, differs, is_published
from export.doctor.rebuild import BUILD
from export.repository.layout import DELETED, LOCK, PUBLISHED, REPLACED, STAGING, VERSION, WITHDRAWN

UNPUBLISHED = (WITHDRAWN, STAGING, REPLACED, DELETED)
# Files that Triton ignores: locks of builds, files for git and for people.
HARMLESS = re.compile(r"\..+\.(lock|highest|new)|\.gitignore|\.gitkeep|README(\.\w+)?")


def examine_root(repository: Repository) -> Iterator[Finding]:
    """Checks everything that is not a version, and that each model has a version."""
    try:
        paths = sorted(repository.path.iterdir())
    except OSError as error:
        remedy = command("chmod", "-R", "a+rX", repository.path)
        yield Finding("", "repository", f"it cannot be read: {error.strerror}", remedy)
        return
    served = {version.model for version in repository.versions()}
    for path in paths:
        yield from _examine_entry(repository, path, served)
    forms = [VERSION.fullmatch(path.name) for path in paths if path.is_dir()]
    if not any(form and form["suffix"] in (PUBLISHED, WITHDRAWN) for form in forms):
        remedy = f"{BUILD} lenet5{repository.option}"
        yield Finding("", "repository", "expected versions NAME.vN, found none", remedy)


def _examine_entry(repository: Repository, path: Path, served: set[str]) -> Iterator[Finding]:
    remove = command("rm", "-r", path)
    form = VERSION.fullmatch(path.name)
    if path.is_symlink() and not path.exists():
        problem = f"{path.name} is a link to {path.readlink()}, which does not exist"
        yield Finding("", "stray", problem, remove)
    elif is_published(path) or HARMLESS.fullmatch(path.name):
        return
    elif path.is_dir() and form and form["suffix"] in UNPUBLISHED:
        yield from _examine_unpublished(repository, path, form, served)
    elif path.is_dir() and re.fullmatch(r".+\.v\d+", path.name):
        expected = "a name of a-z, 0-9, - and _, then .v and a number from 1 without leading zeros"
        yield Finding(
            "",
            "stray",
            differs(path.name, expected, "a name that no gateway serves"),
            _rename(path),
        )
    else:
        kind = "folder" if path.is_dir() else "file"
        problem = f"{path.name}: a {kind} that is not a version, where Triton looks for models"
        yield Finding("", "stray", problem, remove)


def _examine_unpublished(
    repository: Repository, path: Path, form: re.Match[str], served: set[str]
) -> Iterator[Finding]:
    """Checks a version that is withdrawn, or that a build has not finished or not removed."""
    if form["suffix"] != WITHDRAWN:
        if not _is_held(path.with_suffix(LOCK)):
            yield _leftover(path)
    elif form["name"] not in served:
        problem = f"{path.name}: all versions of {form['name']} are withdrawn, none is served"
        remedy = f"convoy restore {path.stem}{repository.option}"
        yield Finding("", "withdrawn", problem, remedy, is_fault=False)


def _is_held(lock_path: Path) -> bool:
    """Returns whether a build is running, which holds a lock on a hidden file."""
    try:
        with lock_path.with_name(f".{lock_path.name}").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _leftover(path: Path) -> Finding:
    """Returns the finding for a folder of a build that was killed."""
    published = path.with_suffix(PUBLISHED)
    if path.suffix == REPLACED and not published.exists():
        problem = f"{published.name} is missing: the build that replaces it was killed"
        return Finding("", "left", problem, command("mv", path, published))
    problem = f"{path.name} remains of a build that was killed; the next build removes it"
    return Finding("", "left", problem, command("rm", "-r", path), is_fault=False)


def _rename(path: Path) -> str:
    """Returns the command that renames it as intended, or to the next free number."""
    model, _, number = path.name.rpartition(".v")
    model = re.sub(r"[^a-z0-9_-]", "-", model.lower()).lstrip("_-") or "model"
    taken = [entry.name for entry in path.parent.iterdir()]
    free = (
        name
        for name in (f"{model}.v{number}" for number in itertools.count(max(1, int(number))))
        if not any(other == name or other.startswith(f"{name}.") for other in taken)
    )
    return command("mv", path, path.with_name(next(free)))
