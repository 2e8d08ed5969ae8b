"""What the gateway does once before it serves: its runner, TLS, open files and the banner."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
from pathlib import Path

from server.errors import StartFailed
from server.network.addresses import is_socket
from server.network.tls import Tls
from server.runners.base import Runner
from server.runners.in_process import InProcessRunner
from server.runners.triton_local import TritonLocalRunner
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


def create_local_runner(settings: Settings) -> Runner | None:
    """The runner on this machine; None: running Tritons are used in its place.

    Raises:
        StartFailed: there is no repository.
    """
    if settings.triton:
        return None
    check_repository(settings.repository)
    if settings.runner == "triton-local":
        return TritonLocalRunner(
            settings.repository,
            cache_path=settings.cache,
            otlp_endpoint=settings.otlp_endpoint,
            load_timeout_s=settings.load_timeout_s,
            inference_threads=settings.inference_threads,
        )
    return InProcessRunner(
        settings.repository,
        load_timeout_s=settings.load_timeout_s,
        inference_threads=settings.inference_threads,
    )


def check_repository(path: Path) -> None:
    """
    Raises:
        StartFailed: it is missing or cannot be read.
    """
    try:
        list(path.iterdir())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StartFailed(
            f"there is no model repository at {path}: name one with --repository, "
            "or build a model with python export/build.py lenet5"
        ) from error
    except OSError as error:
        raise StartFailed(
            f"the model repository {path} cannot be read: {error.strerror or error}"
        ) from error


async def start_local_runner(runner: Runner | None) -> None:
    """
    Raises:
        StartFailed: a Triton of the gateway's own cannot be started.
    """
    if not isinstance(runner, TritonLocalRunner):
        return
    try:
        await runner.start()
    except StartFailed:
        await runner.close()
        raise


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
