"""The gateway's life: ports open first, models load after; it exits when its work is done."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from server.admin.app import create_admin_app
from server.core.ledger import Ledger
from server.core.service import AskSupervisor, Service, no_supervisor
from server.grpc_api.server import GrpcServer
from server.http_api.app import create_app
from server.http_api.problems import UNREAD
from server.http_api.server import FLUSH_TIMEOUT_S, HttpServer
from server.network.addresses import is_socket, listen
from server.network.exposure import check_exposure
from server.observability.metrics import Metrics
from server.open_inference.model_statistics import Statistics
from server.open_inference.rest import RestApi
from server.open_inference.servicer import OPEN_INFERENCE, GrpcInference
from server.pipeline import Pipeline
from server.runners.local import create_local_runner, start_local_runner
from server.settings import Settings
from server.startup import allow_open_files, create_tls, print_banner
from server.tasks import cancel_and_wait, wait_for_first
from server.versions.discovery import Discovery, OneRunner, TritonAddresses
from server.versions.manager import LoadingPolicy
from server.versions.peers import Peers
from server.versions.pool import Pool

logger = logging.getLogger(__name__)

SHOW_READINESS_EVERY_S = 0.1
# asyncio logs what held up the event loop for longer.
SLOW_CALLBACK_S = 0.1


@dataclass(frozen=True)
class Servers:
    """The ports, which are open."""

    http: HttpServer
    admin: HttpServer
    grpc: GrpcServer

    def grpc_address(self, configured: str) -> str:
        """With the port that was picked for port 0."""
        if is_socket(configured):
            return configured
        return f"{configured.rpartition(':')[0]}:{self.grpc.port}"


@dataclass(frozen=True)
class Place:
    """A gateway's place among the workers of a supervisor, which has reserved their ports."""

    ledger: Ledger
    peers: Peers
    beat: Callable[[], None]  # tells the supervisor from now on that the event loop turns
    announce: Callable[[], None]  # that its ports are open
    ask_supervisor: AskSupervisor
    is_replacement: bool  # of one that ended: the others serve until this one is ready


class Gateway:
    """All parts wired together; `run` is its whole life. Create it inside the event loop.

    Raises:
        StartFailed: there is no repository, keys or certificates cannot be read, or other machines
            could use the models without authentication.
    """

    def __init__(self, settings: Settings, place: Place | None = None) -> None:
        check_exposure(settings)
        self._settings = settings
        self._place = place
        self._created_s = time.monotonic()
        self._metrics = Metrics(UNREAD)
        self._tls = create_tls(settings)
        self._local = create_local_runner(settings)
        self._pipeline = Pipeline(
            decode_threads=settings.decode_threads,
            max_image_bytes=settings.max_image_bytes,
            max_image_pixels=settings.max_image_pixels,
            exact_decode=settings.exact_decode,
        )
        policy = LoadingPolicy(
            frozenset(settings.models),
            settings.keep_loaded,
            settings.unload_grace_s,
            settings.load_timeout_s,
        )
        self._pool = Pool(self._pipeline, policy, place.peers if place else None)
        source = (
            OneRunner(self._local, settings.runner)
            if self._local
            else TritonAddresses(settings.triton, settings.load_timeout_s)
        )
        self._discovery = Discovery(self._pool, source, settings.staged)
        self._ledger = place.ledger if place else None
        ask = place.ask_supervisor if place else no_supervisor
        self.service = Service(
            settings, self._pool, self._pipeline, self._metrics, self._ledger, ask
        )

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT, then drains.

        Raises:
            StartFailed: a port is in use, or the runner cannot be started.
        """
        stop, reload = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = SLOW_CALLBACK_S
        for number in (signal.SIGTERM, signal.SIGINT):
            # A second signal changes nothing, and does not cut the drain short.
            loop.add_signal_handler(number, stop.set)
        allow_open_files(self._settings.max_connections)
        background = [
            asyncio.create_task(self._serve_models()),
            asyncio.create_task(self._pool.watch()),
            asyncio.create_task(self.service.admission.clock.run()),
        ]
        stopped = asyncio.create_task(stop.wait())
        try:
            if self._place and self._place.is_replacement:
                self._place.peers.is_spare = True
                models_tried = asyncio.create_task(self._wait_for_models())
                await wait_for_first(stopped, models_tried, *background)
            await self._serve(reload, stopped, background)
        finally:
            await cancel_and_wait(stopped, *background)

    async def _serve(
        self,
        reload: asyncio.Event,
        stopped: asyncio.Task[bool],
        background: list[asyncio.Task[None]],
    ) -> None:
        servers = await self._open_ports()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload.set)
        self._announce(servers)
        background += [
            asyncio.create_task(self._show_readiness(servers)),
            asyncio.create_task(self._reload(servers, reload)),
        ]
        try:
            await wait_for_first(stopped, *background)
        finally:
            await self._drain(servers)
            await cancel_and_wait(*background)
            await self._discovery.close()
            self._pipeline.close()
            logger.info("stopped")

    def _announce(self, servers: Servers) -> None:
        if self._place:
            self._place.peers.is_spare = False
            self._place.announce()
        else:
            grpc_address = servers.grpc_address(self._settings.grpc_address)
            print_banner(self._settings, servers.http.url, grpc_address, servers.admin.url)

    def is_ready(self) -> bool:
        return self.service.is_ready()

    # ------------------------------------------------------------ its ports

    async def _open_ports(self) -> Servers:
        settings = self._settings
        service, statistics = self.service, Statistics(self.service)
        open_inference = RestApi(service, settings, statistics)
        app = create_app(service, settings, open_inference.routes())
        certificate = self._tls.http if self._tls else None
        http = HttpServer(
            app,
            settings.http_address,
            "--http-address",
            settings,
            certificate,
            self._metrics.not_read,
            self._ledger,
        )
        own_statistics = statistics.own if self._place else None
        admin_app = create_admin_app(service, settings, own_statistics)
        admin = HttpServer(admin_app, settings.metrics_address, "--metrics-address", settings)
        if not self._place:
            # gRPC opens its port itself, and where it cannot, only standard error says why.
            listen(settings.grpc_address, "--grpc-address").close()
        servicers = {OPEN_INFERENCE: GrpcInference(service, settings, statistics)}
        grpc = GrpcServer(service, settings, self._tls, servicers, self._ledger)
        await grpc.start()
        return Servers(http, admin, grpc)

    # ------------------------------------------------------------ what it does

    async def _serve_models(self) -> None:
        await start_local_runner(self._local)
        await self._discovery.watch()

    async def _wait_for_models(self) -> None:
        """Until each version was tried: a port that is open gets its share of the connections."""
        while True:
            if self.is_ready() or self._pool.has_started():
                return
            await asyncio.sleep(SHOW_READINESS_EVERY_S)

    async def _show_readiness(self, servers: Servers) -> None:
        """Health over gRPC follows readiness, of which the first time is logged."""
        was_ready = is_logged = False
        while True:
            if self.is_ready() != was_ready:
                was_ready = not was_ready
                await servers.grpc.show_readiness(was_ready)
                if was_ready and not is_logged:
                    is_logged = True
                    logger.info("ready in %.1f s", time.monotonic() - self._created_s)
            await asyncio.sleep(SHOW_READINESS_EVERY_S)

    async def _reload(self, servers: Servers, reload: asyncio.Event) -> None:
        """Reloads keys and certificates on SIGHUP, and drops no connection."""
        while await reload.wait():
            reload.clear()
            if self.service.keys:
                await asyncio.to_thread(self.service.keys.reload)
            if self._tls:
                await asyncio.to_thread(self._tls.reload)
                await servers.http.renew(self._tls.http)

    async def _drain(self, servers: Servers) -> None:
        """Not ready first; then what is in flight finishes; then the ports close."""
        self.service.leave()
        await servers.grpc.show_readiness(False)
        await asyncio.sleep(self._settings.not_ready_s)
        self.service.admission.drain()
        grace_s = self._settings.shutdown_grace_s
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.service.admission.drained(), grace_s)
        self._pipeline.give_up()
        await asyncio.gather(
            servers.grpc.stop(FLUSH_TIMEOUT_S), servers.http.stop(), servers.admin.stop()
        )
