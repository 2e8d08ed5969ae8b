"""`convoy rollback`, `restore` and `remove`: the commands around repository/withdrawal.py."""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer

from convoy.terminal import print_error, printable
from export.cli_options import Repository
from export.errors import RepositoryError
from export.repository import withdrawal
from export.repository.layout import default_repository

FOLLOW = "Running gateways follow within two seconds, once it has proven itself."


def rollback(
    name: Annotated[str, typer.Argument(help="The model, such as lenet5.", show_default=False)],
    repository: Repository = None,
) -> None:
    """Withdraw the highest version of a model, so that the one below it is served again.

    It is renamed to NAME.vN.withdrawn; nothing is deleted, and `convoy restore` undoes it.

    Examples:

        convoy rollback resnet152

        convoy rollback resnet152 --repository /srv/models
    """
    try:
        withdrawn, highest = withdrawal.withdraw(repository or default_repository(), name)
    except RepositoryError as error:
        _fail(error)
    print(f"{withdrawn} is withdrawn, and {highest} is now the highest version. {FOLLOW}")
    print(f"Undo: convoy restore {withdrawn}")


def restore(
    version: Annotated[
        str, typer.Argument(metavar="NAME.vN", help="A withdrawn version.", show_default=False)
    ],
    repository: Repository = None,
) -> None:
    """Restore a version that `convoy rollback` withdrew.

    Examples:

        convoy restore resnet152.v4

        convoy restore resnet152.v4 --repository /srv/models
    """
    try:
        restored, highest = withdrawal.restore(repository or default_repository(), version)
    except RepositoryError as error:
        _fail(error)
    print(f"{restored} is restored, and {highest} is the highest version. {FOLLOW}")


def remove(
    name: Annotated[str, typer.Argument(help="The model, such as lenet5.", show_default=False)],
    repository: Repository = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a model: all its versions, withdrawn ones too. Nothing undoes it.

    Running gateways answer no requests for it any more, and finish those in flight. A later build
    of the same name gets the next number.

    Examples:

        convoy remove my-flowers

        convoy remove my-flowers --yes --repository /srv/models
    """
    path = repository or default_repository()
    try:
        folders = ", ".join(withdrawal.list_versions(path, name))
        if not yes:
            typer.confirm(f"Delete {folders} in {printable(str(path))} for good?", abort=True)
        deleted = withdrawal.remove(path, name)
    except RepositoryError as error:
        _fail(error)
    print(f"{', '.join(deleted)}: deleted. Running gateways follow within two seconds.")


def _fail(error: RepositoryError) -> NoReturn:
    print_error(error)
    raise typer.Exit(1)
