"""The runner on this machine: in the gateway's process, or a Triton of its own."""

from __future__ import annotations

from pathlib import Path

from server.errors import StartFailed
from server.runners.base import Runner
from server.runners.in_process import InProcessRunner
from server.runners.triton_local import TritonLocalRunner
from server.settings import Settings


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
