"""`convoy rollback` and `convoy restore`: one rename each, and the gateways follow.

    NAME.vN  ── rollback ──▶  NAME.vN.withdrawn  ── restore ──▶  NAME.vN

No file says which version is served: the highest that has proven itself is. So the highest steps
aside, under a name that nothing serves, and its number is never used for another one.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from export.errors import RepositoryError
from export.repository.layout import (
    PUBLISHED,
    VERSION,
    WITHDRAWN,
    default_repository,
    exclusively,
    folder_of,
    names,
    numbers,
)

FOLLOW = "Running gateways follow within two seconds, once it has proven itself."

Repository = Annotated[
    Path | None,
    typer.Option(
        envvar="CONVOY_REPOSITORY",
        file_okay=False,
        help="The model repository.",
        show_default="the checkout's model_repository, else ./model_repository",
    ),
]


def rollback(
    name: Annotated[str, typer.Argument(help="The model, such as lenet5.", show_default=False)],
    repository: Repository = None,
) -> None:
    """Withdraw the highest version of a model, so that the one below answers again.

    It is renamed to NAME.vN.withdrawn, and nothing is deleted; `convoy restore` takes it back.

    Examples:

        convoy rollback resnet152

        convoy rollback resnet152 --repository /srv/models
    """
    try:
        withdrawn, highest = withdraw(repository or default_repository(), name)
    except RepositoryError as error:
        _fail(error)
    print(f"{withdrawn} is withdrawn, and {highest} is now the highest version. {FOLLOW}")
    print(f"convoy restore {withdrawn} takes it back.")


def restore(
    version: Annotated[
        str, typer.Argument(metavar="NAME.vN", help="A withdrawn version.", show_default=False)
    ],
    repository: Repository = None,
) -> None:
    """Take back what `convoy rollback` withdrew.

    Examples:

        convoy restore resnet152.v4

        convoy restore resnet152.v4 --repository /srv/models
    """
    try:
        restored, highest = put_back(repository or default_repository(), version)
    except RepositoryError as error:
        _fail(error)
    print(f"{restored} is restored, and {highest} is the highest version. {FOLLOW}")


def withdraw(repository: Path, name: str) -> tuple[str, str]:
    """The version that went, and the one that is the highest now.

    Raises:
        RepositoryError: there is none to withdraw, or none would be left.
    """
    _require(repository, name)
    with exclusively(repository, name):
        published = numbers(repository, name)
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


def put_back(repository: Path, version: str) -> tuple[str, str]:
    """The version that came back, and the one that is the highest now.

    Raises:
        RepositoryError: it is not there, or is not withdrawn.
    """
    match = VERSION.fullmatch(version.removesuffix(WITHDRAWN))
    if not match or match["suffix"]:
        raise RepositoryError(f"{version!r} is no version: name one as NAME.vN, such as lenet5.v2.")
    name, number = match["name"], int(match["number"])
    _require(repository, name)
    with exclusively(repository, name):
        withdrawn = numbers(repository, name, WITHDRAWN)
        if number not in withdrawn:
            there = ", ".join(f"{name}.v{each}" for each in withdrawn) or "none"
            served = number in numbers(repository, name)
            raise RepositoryError(
                f"{name}.v{number} is not withdrawn, it is published."
                if served
                else f"There is no {name}.v{number} in {repository}; withdrawn: {there}."
            )
        _rename(repository, name, number, WITHDRAWN, PUBLISHED)
        return f"{name}.v{number}", f"{name}.v{numbers(repository, name)[-1]}"


def _rename(repository: Path, name: str, number: int, old: str, new: str) -> None:
    to = folder_of(repository, name, number, new)
    if to.exists():
        raise RepositoryError(f"{to} is there already: delete the one of the two that is wrong.")
    folder_of(repository, name, number, old).rename(to)


def _require(repository: Path, name: str) -> None:
    """Before there is a lock: nothing is left behind for a name that nobody has."""
    if not repository.is_dir():
        raise RepositoryError(
            f"There is no model repository at {repository}: name one with --repository or "
            "CONVOY_REPOSITORY."
        )
    here = names(repository)
    if name in here:
        return
    nearest = difflib.get_close_matches(name, here, n=3, cutoff=0.5)
    known = f"{'nearest' if nearest else 'there are'}: {', '.join(nearest or sorted(here))}"
    raise RepositoryError(
        f"{repository} has no model {name!r}; {known if here else 'it is empty'}."
    )


def _fail(error: RepositoryError) -> NoReturn:
    print(error, file=sys.stderr)
    raise typer.Exit(1)
