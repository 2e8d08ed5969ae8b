"""What the gateway does once before it serves: TLS, open files and the banner."""

from __future__ import annotations

import contextlib
import logging
import os
import resource

from server.errors import StartFailed
from server.network.addresses import is_socket
from server.network.tls import Tls
from server.settings import Settings

logger = logging.getLogger(__name__)

STANDARD_OUTPUT = 1
# Sockets and files besides the connections to the two APIs.
OTHER_OPEN_FILES = 100

BANNER = """\
Convoy serves {models}
  HTTP      {http}
  gRPC      {grpc}
  admin     {admin}/metrics"""
EXAMPLES = """\
Try, in another shell:
  curl --data-binary @tests/data/digit-7.png '{http}/v1/models/lenet5:classify?top_k=3'
  .venv/bin/convoy classify tests/data/digit-7.png --model lenet5 --server {grpc}
  .venv/bin/convoy models --server {grpc}"""


def create_tls(settings: Settings) -> Tls | None:
    """
    Raises:
        StartFailed: a file is missing or cannot be read.
    """
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate and key:
        return Tls(certificate, key, settings.tls_client_ca)
    if certificate or key or settings.tls_client_ca:
        raise StartFailed(
            "TLS needs both --tls-certificate and --tls-key; --tls-client-ca needs them too"
        )
    return None


def allow_open_files(max_connections: int) -> None:
    """Raises the limit of open files to what the connections to both APIs need, if possible."""
    needed = 2 * max_connections + OTHER_OPEN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    limit = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    if limit < needed:
        logger.warning(
            "%d files may be open, and %d are needed: raise `ulimit -n` or lower --max-connections",
            limit,
            needed,
        )


def print_banner(settings: Settings, http: str, grpc: str, admin: str) -> None:
    """Writes to standard output where the models and the ports are."""
    text = BANNER.format(models=describe_models(settings), http=http, grpc=grpc, admin=admin)
    if not is_socket(http):
        text += "\n" + EXAMPLES.format(http=http, grpc=grpc)
    # print would try again at the exit what a full disk did not take, and fail the exit.
    with contextlib.suppress(OSError):
        os.write(STANDARD_OUTPUT, f"{text}\n".encode(errors="replace"))


def describe_models(settings: Settings) -> str:
    if settings.triton:
        return f"the models of the Triton at {', '.join(settings.triton)}"
    if settings.runner == "triton-local":
        return f"{settings.repository} with a Triton of its own"
    return f"{settings.repository} in process"
