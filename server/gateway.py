"""The gateway's life: ports open first, models load after; it leaves when its work is done."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import time
from dataclasses import dataclass
from functools import partial

from server.admin.triton_statistics import TritonStatistics
from server.core.admission import Admission
from server.core.classifier import Classifier
from server.core.keys import Keys
from server.errors import StartFailed
from server.grpc_api.server import GrpcDoor
from server.http_api.app import http_door, operator_door
from server.http_api.server import FLUSH_TIMEOUT_S, HttpServer
from server.network.addresses import is_socket, listen
from server.network.exposure import check_exposure
from server.network.tls import Tls
from server.observability.metrics import Metrics
from server.open_inference import (
    OPEN_INFERENCE,
    OpenInference,
    add_open_inference,
    open_inference_routes,
)
from server.pipeline import Pipeline
from server.runners.base import Runner
from server.runners.in_process import InProcessRunner
from server.runners.triton_local import TritonLocalRunner
from server.settings import Settings
from server.tasks import cancel_and_wait, first_of
from server.versions.discovery import Discovery, OneRunner, RunnerSource, TritonAddresses
from server.versions.manager import LoadingPolicy
from server.versions.pool import Pool

logger = logging.getLogger(__name__)

SHOW_READINESS_EVERY_S = 0.1
STANDARD_OUTPUT = 1
# Sockets and files beside the connections of the two doors.
OPEN_FILES_BESIDE = 100
# asyncio names what held the event loop for longer.
SLOW_CALLBACK_S = 0.1

BANNER = """\
Convoy serves {where}
  HTTP      {http}
  gRPC      {grpc}
  operator  {operator}/metrics"""
TRY = """\
Try, in another shell:
  curl --data-binary @tests/data/digit-7.png '{http}/v1/models/lenet5:classify?top_k=3'
  .venv/bin/convoy classify tests/data/digit-7.png --model lenet5 --server {grpc}
  .venv/bin/convoy models --server {grpc}"""


class Gateway:
    """Everything wired together; `run` is its whole life. To be made inside the event loop.

    Raises:
        StartFailed: there is no repository, keys or certificates cannot be read, or strangers
            could ask without a key.
    """

    def __init__(self, settings: Settings) -> None:
        check_exposure(settings)
        self._settings = settings
        self._keys = Keys(settings.api_keys, self._note_refusal) if settings.api_keys else None
        self._tls = tls_of(settings)
        self._is_leaving = False
        self._created_s = time.monotonic()
        self._local = None if settings.triton else build_local_runner(settings)
        self._pipeline = Pipeline(
            decode_threads=settings.decode_threads,
            max_image_bytes=settings.max_image_bytes,
            max_image_pixels=settings.max_image_pixels,
        )
        policy = LoadingPolicy(
            frozenset(settings.models), settings.keep_loaded, settings.unload_grace_s
        )
        self._pool = Pool(self._pipeline, policy)
        self._discovery = Discovery(self._pool, self._runner_source(), settings.staged)
        self._admission = Admission(settings.max_in_flight, settings.max_in_flight_bytes)
        self._metrics = Metrics(
            self._pool,
            self._admission,
            self.is_ready,
            TritonStatistics(self._pool),
        )
        self._classifier = Classifier(
            self._pool,
            self._pipeline,
            self._admission,
            self._metrics,
            keys=self._keys,
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
        allow_open_files(2 * self._settings.max_connections + OPEN_FILES_BESIDE)
        doors = await self._open_doors()
        renewal = asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, renewal.set)
        say(self._greeting(doors))
        background = [
            asyncio.create_task(self._serve_models()),
            asyncio.create_task(self._pool.watch()),
            asyncio.create_task(self._show_readiness(doors)),
            asyncio.create_task(self._renew(doors, renewal)),
        ]
        try:
            await first_of(asyncio.create_task(stop.wait()), *background)
        finally:
            await self._drain(doors)
            await cancel_and_wait(*background)
            await self._discovery.close()
            self._pipeline.close()
            logger.info("stopped")

    # ------------------------------------------------------------ what it is made of

    def _note_refusal(self, reason: str) -> None:
        self._metrics.refused("", reason)

    def _runner_source(self) -> RunnerSource:
        if self._local:
            return OneRunner(self._local, self._settings.runner)
        return TritonAddresses(self._settings.triton)

    def is_ready(self) -> bool:
        return not self._is_leaving and self._pool.is_ready()

    async def _open_doors(self) -> Doors:
        settings = self._settings
        open_inference = OpenInference(
            self._classifier,
            self._pool,
            self._admission,
            self.is_ready,
            keys=self._keys,
            max_request_bytes=settings.max_request_bytes,
            max_batch_requests=settings.max_batch_requests,
        )
        door = http_door(
            self._classifier,
            self._pool,
            self._admission,
            self.is_ready,
            settings,
            keys=self._keys,
            more_routes=open_inference_routes(open_inference),
        )
        certificate = self._tls.http if self._tls else None
        http = HttpServer(
            door,
            settings.http_address,
            "--http-address",
            settings,
            certificate,
            self._metrics.not_read,
        )
        operator = HttpServer(
            operator_door(self._pool, self._metrics, self._admission, settings, self.is_ready),
            settings.metrics_address,
            "--metrics-address",
            settings,
        )
        # gRPC opens its port itself, and tells standard error if it cannot: so we look first.
        listen(settings.grpc_address, "--grpc-address").close()
        grpc_door = GrpcDoor(
            self._classifier,
            self._pool,
            self._admission,
            settings,
            keys=self._keys,
            tls=self._tls,
            more_services={OPEN_INFERENCE: partial(add_open_inference, open_inference)},
        )
        await grpc_door.start()
        return Doors(http, operator, grpc_door)

    def _greeting(self, doors: Doors) -> str:
        http, grpc = doors.http.url, doors.grpc_address(self._settings.grpc_address)
        where = where_models_run(self._settings)
        greeting = BANNER.format(where=where, http=http, grpc=grpc, operator=doors.operator.url)
        return greeting if is_socket(http) else f"{greeting}\n{TRY.format(http=http, grpc=grpc)}"

    # ------------------------------------------------------------ what it does

    async def _serve_models(self) -> None:
        if isinstance(self._local, TritonLocalRunner):
            try:
                await self._local.start()
            except StartFailed:
                await self._local.close()
                raise
        await self._discovery.watch()

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

    async def _renew(self, doors: Doors, renewal: asyncio.Event) -> None:
        """On SIGHUP: keys and certificates anew, and no connection dropped."""
        while await renewal.wait():
            renewal.clear()
            if self._keys:
                await asyncio.to_thread(self._keys.reload)
            if self._tls:
                await asyncio.to_thread(self._tls.reload)
                await doors.http.renew(self._tls.http)

    async def _drain(self, doors: Doors) -> None:
        """Not ready first; then what is in flight finishes; then the ports close."""
        self._is_leaving = True
        await doors.grpc.show_readiness(False)
        await asyncio.sleep(self._settings.not_ready_s)
        self._admission.drain()
        grace_s = self._settings.shutdown_grace_s
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._admission.drained(), grace_s)
        await asyncio.gather(
            doors.grpc.stop(FLUSH_TIMEOUT_S), doors.http.stop(), doors.operator.stop()
        )


# ---------------------------------------------------------------- its parts


@dataclass(frozen=True)
class Doors:
    http: HttpServer
    operator: HttpServer
    grpc: GrpcDoor

    def grpc_address(self, asked: str) -> str:
        return asked if is_socket(asked) else f"{asked.rpartition(':')[0]}:{self.grpc.port}"


def tls_of(settings: Settings) -> Tls | None:
    """
    Raises:
        StartFailed: a part is missing, or cannot be read.
    """
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate and key:
        return Tls(certificate, key, settings.tls_client_ca)
    if certificate or key or settings.tls_client_ca:
        raise StartFailed("TLS needs both --tls-certificate and --tls-key; a client CA needs them")
    return None


def build_local_runner(settings: Settings) -> Runner:
    """
    Raises:
        StartFailed: there is no repository.
    """
    if not settings.repository.is_dir():
        raise StartFailed(
            f"there is no model repository at {settings.repository}: name one with --repository, "
            "or build a model with python export/build.py lenet5"
        )
    if settings.runner == "triton-local":
        return TritonLocalRunner(
            settings.repository, cache_path=settings.cache, otlp_endpoint=settings.otlp_endpoint
        )
    return InProcessRunner(settings.repository)


def where_models_run(settings: Settings) -> str:
    if settings.triton:
        return f"the models of the Triton at {', '.join(settings.triton)}"
    if settings.runner == "triton-local":
        return f"{settings.repository} with a Triton of its own"
    return f"{settings.repository} in process"


def allow_open_files(needed: int) -> None:
    """As many as the connections that are allowed need, or as the operator lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    most = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < needed:
        logger.warning(
            "%d files may be open, and %d are needed: raise `ulimit -n` or lower --max-connections",
            most,
            needed,
        )


def say(text: str) -> None:
    """On standard output. What print cannot write it tries again at the end, and fails the exit."""
    with contextlib.suppress(OSError):  # its disk is full
        os.write(STANDARD_OUTPUT, f"{text}\n".encode())
