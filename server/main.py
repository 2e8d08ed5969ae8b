"""`convoy serve`: the arguments become settings, the settings a gateway, and the gateway runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from server.settings import Settings

# The settings class reads the arguments, --help included; Typer passes them on untouched.
CONTEXT_SETTINGS = {
    "ignore_unknown_options": True,
    "allow_extra_args": True,
    "help_option_names": [],
}


def serve(context: typer.Context) -> None:
    """Serve the models of a repository over gRPC and HTTP."""
    import asyncio

    from server import logs
    from server.gateway import Gateway, StartFailed

    async def run() -> None:
        await Gateway(settings).run()

    settings = read_settings(context.args)
    logs.set_up(settings.log_format, settings.log_level)
    try:
        asyncio.run(run())
    except StartFailed as error:
        print(f"convoy serve: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


serve.context_settings = CONTEXT_SETTINGS  # type: ignore[attr-defined]


def read_settings(arguments: list[str]) -> Settings:
    """A wrong value ends in one line each: the field, what is wrong, the value."""
    from pydantic import ValidationError
    from pydantic_settings import CliApp, SettingsError

    from server.settings import Settings

    try:
        return CliApp.run(Settings, cli_args=arguments)
    except ValidationError as invalid:
        for fault in invalid.errors():
            flag = "--" + ".".join(str(part) for part in fault["loc"]).replace("_", "-")
            print(f"convoy serve: {flag}: {fault['msg']}, got {fault['input']!r}", file=sys.stderr)
    except SettingsError as error:
        print(f"convoy serve: {error}", file=sys.stderr)
    raise typer.Exit(2)
