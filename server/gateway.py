"""The gateway's life: ports open first, models load after; it leaves when its work is done."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from server.admission import Admission
from server.classifier import Classifier
from server.grpc_api import GrpcDoor
from server.http_api import http_door, operator_door
from server.metrics import Metrics
from server.pipeline import Pipeline
from server.proof import prove
from server.registry import Registry
from server.runners.base import LoadedModel, Runner
from server.runners.in_process import InProcessRunner
from server.runners.staged import StagedRunner
from server.runners.triton import TritonRunner
from server.runners.triton_local import TritonLocalRunner
from server.runners.tritonserver_wheel import TritonCannotStart
from server.settings import Settings

logger = logging.getLogger(__name__)

SHOW_READINESS_EVERY_S = 0.1
# asyncio names what held the event loop for longer.
SLOW_CALLBACK_S = 0.1


# After the last answer is made, the time in which it may still leave.
LAST_WORDS_S = 5.0

GREETING = """\
Convoy serves {where}
  HTTP      {http}
  gRPC      {grpc}
  operator  {operator}/metrics"""
TRY = """\
Try, in another shell:
  curl --data-binary @tests/data/digit-7.png '{http}/v1/models/lenet5:classify?top_k=3'
  .venv/bin/convoy classify tests/data/digit-7.png --model lenet5 --server {grpc}
  .venv/bin/convoy models --server {grpc}"""


class StartFailed(Exception):
    """The gateway cannot start; the message says why and what to do, in one sentence."""


class Gateway:
    """Everything wired together; `run` is its whole life. To be made inside the event loop.

    Raises:
        StartFailed: there is no repository.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._created_s = time.monotonic()
        runner = build_runner(settings)
        self._runner = StagedRunner(runner, settings.staged) if settings.staged else runner
        self._pipeline = Pipeline(
            self._runner,
            decode_threads=settings.decode_threads,
            max_image_bytes=settings.max_image_bytes,
            max_image_pixels=settings.max_image_pixels,
        )
        self._registry = Registry(
            self._runner,
            self._prove,
            wanted=settings.models,
            keep_loaded=settings.keep_loaded,
            unload_grace_s=settings.unload_grace_s,
        )
        self._admission = Admission(settings.max_in_flight, settings.max_in_flight_bytes)
        self._metrics = Metrics(self._registry.list, lambda: self._admission.in_flight)
        self._classifier = Classifier(
            self._registry,
            self._pipeline,
            self._admission,
            self._metrics,
            max_batch_requests=settings.max_batch_requests,
        )

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT, then drains.

        Raises:
            StartFailed: a port is taken, or the runner cannot be started.
        """
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = SLOW_CALLBACK_S
        for number in (signal.SIGTERM, signal.SIGINT):
            # A second signal sets what is set already, and does not cut the drain short.
            loop.add_signal_handler(number, stop.set)
        doors = await self._open_doors()
        print(self._greeting(doors), flush=True)
        background = [
            asyncio.create_task(self._serve_models()),
            asyncio.create_task(self._show_readiness(doors)),
        ]
        try:
            await first_of(asyncio.create_task(stop.wait()), *background)
        finally:
            await self._drain(doors)
            await cancel(background)
            await self._registry.close()
            await self._runner.close()
            self._pipeline.close()
            logger.info("stopped")

    # ------------------------------------------------------------ what it is made of

    async def _prove(self, folder: str, model: LoadedModel) -> None:
        await prove(self._pipeline, folder, model)

    def is_ready(self) -> bool:
        return not self._admission.is_draining and self._registry.is_ready()

    async def _open_doors(self) -> Doors:
        settings = self._settings
        door = http_door(
            self._classifier, self._registry, self.is_ready, settings.max_request_bytes
        )
        http = HttpServer(door, settings.http_address, "--http-address")
        operator = HttpServer(
            operator_door(self._registry, self._metrics, self.is_ready),
            settings.metrics_address,
            "--metrics-address",
        )
        # gRPC opens its port itself, and tells standard error if it cannot: so we look first.
        listen(settings.grpc_address, "--grpc-address").close()
        grpc_door = GrpcDoor(
            self._classifier,
            self._registry,
            self._admission,
            address=settings.grpc_address,
            max_request_bytes=settings.max_request_bytes,
        )
        await grpc_door.start()
        return Doors(http, operator, grpc_door)

    def _greeting(self, doors: Doors) -> str:
        http, grpc = doors.http.url, doors.grpc_address(self._settings.grpc_address)
        where = where_models_run(self._settings)
        greeting = GREETING.format(where=where, http=http, grpc=grpc, operator=doors.operator.url)
        return greeting if is_socket(http) else f"{greeting}\n{TRY.format(http=http, grpc=grpc)}"

    # ------------------------------------------------------------ what it does

    async def _serve_models(self) -> None:
        if isinstance(self._runner, TritonLocalRunner):
            try:
                await self._runner.start()
            except TritonCannotStart as error:
                raise StartFailed(str(error)) from error
        await self._registry.watch()

    async def _show_readiness(self, doors: Doors) -> None:
        """Health over gRPC follows readiness; the first time that it is ready, says so."""
        was_ready = said = False
        while True:
            if self.is_ready() != was_ready:
                was_ready = not was_ready
                await doors.grpc.show_readiness(was_ready)
                if was_ready and not said:
                    said = True
                    logger.info("ready in %.1f s", time.monotonic() - self._created_s)
            await asyncio.sleep(SHOW_READINESS_EVERY_S)

    async def _drain(self, doors: Doors) -> None:
        """Not ready first; then what is in flight finishes; then the ports close."""
        self._admission.drain()
        await doors.grpc.show_readiness(False)
        grace_s = self._settings.shutdown_grace_s
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._admission.drained(), grace_s)
        await asyncio.gather(
            doors.grpc.stop(LAST_WORDS_S), doors.http.stop(), doors.operator.stop()
        )


# ---------------------------------------------------------------- its parts


@dataclass(frozen=True)
class Doors:
    http: HttpServer
    operator: HttpServer
    grpc: GrpcDoor

    def grpc_address(self, asked: str) -> str:
        return asked if is_socket(asked) else f"{asked.rpartition(':')[0]}:{self.grpc.port}"


class UvicornServer(uvicorn.Server):
    """Signals are the gateway's; uvicorn would end on the second one."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """One application on one port, open from the start."""

    def __init__(self, application: Starlette, address: str, flag: str) -> None:
        self._socket = listen(address, flag)
        host = address.rpartition(":")[0]
        port = self._socket.getsockname()[1]
        self.url = address if is_socket(address) else f"http://{host}:{port}"
        config = uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=int(LAST_WORDS_S),
        )
        self._server = UvicornServer(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def stop(self) -> None:
        self._server.should_exit = True
        await self._task
        if is_socket(self.url):
            remove_socket(self.url.removeprefix("unix:"))


def build_runner(settings: Settings) -> Runner:
    """
    Raises:
        StartFailed: there is no repository where one is needed.
    """
    if settings.triton:
        return TritonRunner(settings.triton)
    if not settings.repository.is_dir():
        raise StartFailed(
            f"there is no model repository at {settings.repository}: name one with --repository, "
            "or build a model with python export/build.py lenet5"
        )
    if settings.runner == "triton-local":
        return TritonLocalRunner(settings.repository, cache_path=settings.cache)
    return InProcessRunner(settings.repository)


def where_models_run(settings: Settings) -> str:
    if settings.triton:
        return f"the models of the Triton at {settings.triton}"
    if settings.runner == "triton-local":
        return f"{settings.repository} with a Triton of its own"
    return f"{settings.repository} in process"


def is_socket(address: str) -> bool:
    return address.startswith("unix:")


def listen(address: str, flag: str) -> socket.socket:
    """
    Raises:
        StartFailed: most likely because another program listens there.
    """
    host, _, port = address.rpartition(":")
    try:
        if is_socket(address):
            return listen_on_socket(port)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host.strip("[]"), int(port)), family=family)
    except OSError as error:
        raise StartFailed(
            f"{flag} {address} cannot be listened on ({error.strerror}): stop the program that "
            "does, or give a free port (0 takes any)"
        ) from error


def remove_socket(path: str) -> None:
    Path(path).unlink(missing_ok=True)


def listen_on_socket(path: str) -> socket.socket:
    """A gateway that was killed leaves its socket's file, which nobody answers any more."""
    taken = socket.socket(socket.AF_UNIX)
    with taken, contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
        taken.connect(path)
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    remove_socket(path)
    door = socket.socket(socket.AF_UNIX)
    door.bind(path)
    door.listen()
    return door


async def first_of(*tasks: asyncio.Task[object]) -> None:
    """Returns when one of them ends; its error, if any, is the caller's."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        await task


async def cancel(tasks: Iterable[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
