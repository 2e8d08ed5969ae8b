"""`convoy serve`: the arguments become settings, the settings a gateway, and the gateway runs."""

from __future__ import annotations

import sys

import typer

# The settings class reads the arguments, --help included; Typer passes them on untouched.
CONTEXT_SETTINGS = {
    "ignore_unknown_options": True,
    "allow_extra_args": True,
    "help_option_names": [],
}


def serve(context: typer.Context) -> None:
    """Serve the models of a repository over gRPC and HTTP."""
    import asyncio

    from server import settings_sources
    from server.errors import StartFailed
    from server.gateway import Gateway
    from server.observability import logs, tracing

    async def run() -> None:
        await Gateway(settings).run()

    try:
        configured = settings_sources.read(context.args)
    except settings_sources.WrongSettings as error:
        print("\n".join(f"convoy serve: {line}" for line in error.lines), file=sys.stderr)
        raise typer.Exit(2) from error
    settings = configured.settings
    if settings.show_config:
        print(configured.as_toml(), end="")
        return
    logs.set_up(settings.log_format, settings.log_level)
    configured.warn_of_unknown_variables()
    if settings.otlp_endpoint:
        tracing.set_up(settings.otlp_endpoint)
    try:
        asyncio.run(run())
    except StartFailed as error:
        print(f"convoy serve: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


serve.context_settings = CONTEXT_SETTINGS  # type: ignore[attr-defined]
