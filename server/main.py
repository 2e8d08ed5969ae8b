"""`convoy serve` and `convoy key`."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import secrets
import sys
from collections.abc import Iterator
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
    with lasting_imports():
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
        run_gateways(resolved)


def silence_grpc_core() -> None:
    """Call it before gRPC is imported.

    gRPC's core writes to standard error itself, such as a line per failed handshake: they are no
    JSON, and while nobody reads them, its threads wait, and with them all calls.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


@contextlib.contextmanager
def lasting_imports() -> Iterator[None]:
    """The garbage collector ignores what is imported, now and later: it lasts as long as the
    process, and looking through it again and again would take a tenth of the start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def run_gateways(resolved: ResolvedSettings) -> None:
    """Returns when they have been stopped: the gateway, or the workers that share its ports."""
    from server.observability import logs
    from server.workers.count import count_workers

    settings = resolved.settings
    logs.set_up(settings.log_format, settings.log_level)
    resolved.warn_of_unknown_variables()
    workers = count_workers(settings)
    if workers > 1:
        with lasting_imports():
            from server.workers.supervisor import run_supervisor

        status = run_supervisor(settings, workers)
    else:
        with lasting_imports():
            from server.workers.worker import run_gateway

        status = run_gateway(settings)
    if status:
        raise typer.Exit(status)


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
