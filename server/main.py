"""`convoy serve` and `convoy key`."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from server.settings_sources import ResolvedSettings

app = typer.Typer()

KEY_BYTES = 32
KEY_LINES = """\
[{name}]
sha256 = "{sha256}"
requests_per_s = {requests_per_s:g}
burst = {burst}
"""


# What the flags are is known once the settings are imported, which takes long: `serve` parses them.
@app.command(
    context_settings={
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "help_option_names": [],
    }
)
def serve(context: typer.Context) -> None:
    """Serve a model repository over gRPC and HTTP."""
    silence_grpc_core()
    from server import settings_sources
    from server.serve_options import parse_flags

    try:
        resolved = settings_sources.read(parse_flags(context.args))
    except settings_sources.WrongSettings as error:
        print("\n".join(f"convoy serve: {line}" for line in error.lines), file=sys.stderr)
        raise typer.Exit(2) from error
    if resolved.settings.show_config:
        print(resolved.as_toml(), end="")
    else:
        run_gateway(resolved)


def silence_grpc_core() -> None:
    """Call it before gRPC is imported.

    gRPC's core writes to standard error itself, such as a line per failed handshake: they are no
    JSON, and while nobody reads them, its threads wait, and with them all calls.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def run_gateway(resolved: ResolvedSettings) -> None:
    """Returns when the gateway has been stopped."""
    import asyncio

    from server.errors import StartFailed
    from server.gateway import Gateway
    from server.observability import logs, tracing

    async def run() -> None:
        await Gateway(settings).run()

    settings = resolved.settings
    logs.set_up(settings.log_format, settings.log_level)
    resolved.warn_of_unknown_variables()
    if settings.otlp_endpoint:
        tracing.set_up(settings.otlp_endpoint)
    try:
        asyncio.run(run())
    except StartFailed as error:
        print(f"convoy serve: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    end_if_threads_are_busy()


def end_if_threads_are_busy() -> None:
    """With a model that could not be ended, the process would crash once its libraries end."""
    import atexit

    from server.runners import daemon_threads

    if daemon_threads.are_busy():
        atexit._run_exitfuncs()  # which write what waits of the log and of traces
        os._exit(0)


@app.command()
def key(
    name: Annotated[str, typer.Argument(help="Whose key it is; logs show the name.")],
    requests_per_s: Annotated[
        float, typer.Option(min=0.001, help="Requests per second in the long run.")
    ] = 100.0,
    burst: Annotated[
        int, typer.Option(min=1, help="Requests that may arrive at once after a pause.")
    ] = 200,
) -> None:
    """Make an API key.

    The key is shown once, on standard error; the lines for the file of keys go to standard output.

    Examples:

        convoy key alice >> keys.toml
    """
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise typer.BadParameter(f"{name!r} must consist of letters, digits, - and _")
    secret = f"convoy_{secrets.token_urlsafe(KEY_BYTES)}"
    sha256 = hashlib.sha256(secret.encode()).hexdigest()
    print(KEY_LINES.format(name=name, sha256=sha256, requests_per_s=requests_per_s, burst=burst))
    print(f"the key of {name}, shown only now: {secret}", file=sys.stderr)
