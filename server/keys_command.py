"""`convoy key`: a new API key for a client, and the lines for the gateway's file of keys."""

from __future__ import annotations

import hashlib
import secrets
import sys
from typing import Annotated

import typer

KEY_BYTES = 32

LINES = """\
[{name}]
sha256 = "{sha256}"
requests_per_s = {requests_per_s:g}
burst = {burst}
"""


def key(
    name: Annotated[str, typer.Argument(help="Whose key it is; logs and metrics show it.")],
    requests_per_s: Annotated[
        float, typer.Option(min=0.001, help="Requests a second, in the long run.")
    ] = 100.0,
    burst: Annotated[int, typer.Option(min=1, help="Requests at once, after a pause.")] = 200,
) -> None:
    """Make an API key. It is shown once, on standard error; the lines go to standard output.

    Examples:

        convoy key alice >> keys.toml
    """
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise typer.BadParameter(f"{name!r} must be letters, digits, - and _")
    secret = f"convoy_{secrets.token_urlsafe(KEY_BYTES)}"
    sha256 = hashlib.sha256(secret.encode()).hexdigest()
    print(LINES.format(name=name, sha256=sha256, requests_per_s=requests_per_s, burst=burst))
    print(f"the key of {name}, shown this once: {secret}", file=sys.stderr)
