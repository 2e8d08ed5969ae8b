"""The process above the workers: it starts them, watches them and ends them.

The workers share the ports of both APIs. The admin port is the supervisor's, and stands for all.
Workers take a second to import what a gateway is made of, so the supervisor starts them first, and
imports what its admin port needs meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import signal
import sys
import tempfile
from contextlib import ExitStack, closing, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from server.core.keys import read_keys
from server.errors import StartFailed
from server.network.addresses import listen
from server.network.exposure import check_exposure
from server.settings import Settings
from server.startup import print_banner
from server.tasks import cancel_and_wait, wait_for_first
from server.workers.count import settings_of_worker
from server.workers.ports import reserve_port
from server.workers.shared import Shared
from server.workers.supervised import SupervisedWorker

if TYPE_CHECKING:
    from server.workers.admin import AdminPort

logger = logging.getLogger(__name__)

# Beyond the time that a worker gives its requests; flushing its connections takes up to 10 s.
KILL_AFTER_S = 20.0


def run_supervisor(settings: Settings, workers: int) -> int:
    """Returns the exit status once all workers have been stopped."""
    try:
        asyncio.run(Supervisor(settings, workers).run())
    except StartFailed as error:
        print(f"convoy serve: {error}", file=sys.stderr)
        return 1
    return 0


def create_folder() -> tempfile.TemporaryDirectory[str]:
    """For the sockets of supervisor and workers, which only this user can reach.

    Raises:
        StartFailed: nothing can be written.
    """
    try:
        return tempfile.TemporaryDirectory(prefix="convoy-")
    except OSError as error:
        raise StartFailed(
            f"--workers needs a folder to write to: name one by TMPDIR ({error})"
        ) from error


class Supervisor:
    """
    Raises:
        StartFailed: other machines could use the models without authentication, or there is no
            folder to write to.
    """

    def __init__(self, settings: Settings, workers: int) -> None:
        check_exposure(settings)
        self._settings = settings
        self._n_workers = workers
        self._context = multiprocessing.get_context("spawn")
        self._folder = create_folder()
        self._shared = Shared.create(self._context, workers, self._folder.name)

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT, then has all workers drain.

        Raises:
            StartFailed: a port is in use, or a worker cannot start.
        """
        stop, reload = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, reload.set)
        with self._folder, ExitStack() as held:
            workers = self._create_workers(held)
            # Whether it is in use shows before anything starts, and not after.
            listen(self._settings.metrics_address, "--metrics-address").close()
            keepers = [asyncio.create_task(worker.keep_running()) for worker in workers]
            reloading = asyncio.create_task(self._reload(workers, reload))
            stopped = asyncio.create_task(stop.wait())
            admin = await self._open_admin_port(workers)
            try:
                await self._announce(workers, admin.url, stopped, *keepers)
                await wait_for_first(stopped, reloading, admin.watching, *keepers)
            finally:
                await cancel_and_wait(admin.watching)
                await self._drain(workers, keepers)
                await cancel_and_wait(stopped, reloading, *keepers)
                await admin.stop()
            logger.info("stopped")

    async def _open_admin_port(self, workers: list[SupervisedWorker]) -> AdminPort:
        await asyncio.to_thread(import_module, "server.workers.admin")
        from server.workers.admin import AdminPort

        return AdminPort(workers, self._settings, self._shared)

    def _create_workers(self, held: ExitStack) -> list[SupervisedWorker]:
        """
        Raises:
            StartFailed: a port is in use.
        """
        settings = self._settings
        http = held.enter_context(closing(reserve_port(settings.http_address, "--http-address")))
        grpc = held.enter_context(closing(reserve_port(settings.grpc_address, "--grpc-address")))
        workers = []
        for number in range(self._n_workers):
            addresses = {
                "http_address": http.address,
                "grpc_address": grpc.address,
                "metrics_address": self._shared.worker_address(number),
            }
            own = settings_of_worker(settings, self._n_workers, addresses)
            workers.append(
                SupervisedWorker(number, own, self._context, self._shared, self._share_names)
            )
        return workers

    async def _announce(
        self,
        workers: list[SupervisedWorker],
        admin_url: str,
        *ends: asyncio.Task[Any],
    ) -> None:
        """Prints the banner once all listen, unless one of `ends` comes before."""
        listening = asyncio.gather(*(worker.listening.wait() for worker in workers))
        await wait_for_first(listening, *ends)
        if listening.done():
            own = workers[0].settings
            scheme = "https" if own.tls_certificate else "http"
            http = f"{scheme}://{own.http_address}"
            print_banner(self._settings, http, own.grpc_address, admin_url)
            logger.info("%d workers listen", len(workers))
        await cancel_and_wait(listening)

    async def _reload(self, workers: list[SupervisedWorker], reload: asyncio.Event) -> None:
        """Passes SIGHUP on. A key that is new has its place before a worker reads it."""
        while await reload.wait():
            reload.clear()
            await asyncio.to_thread(self._share_names)
            for worker in workers:
                worker.reload()

    def _share_names(self) -> None:
        """Gives each key its place; what is wrong with the file is the worker's to say."""
        path = self._settings.api_keys
        with suppress(StartFailed):
            if path and (without_place := self._shared.ledger.add_clients(read_keys(path))):
                logger.warning("the limits of %d keys hold in each worker alone", without_place)

    async def _drain(
        self, workers: list[SupervisedWorker], keepers: list[asyncio.Task[None]]
    ) -> None:
        for worker in workers:
            worker.stop()
        settings = self._settings
        grace_s = settings.not_ready_s + settings.shutdown_grace_s
        _, running = await asyncio.wait(keepers, timeout=grace_s + KILL_AFTER_S)
        if running:
            logger.error("%d workers did not end in time and are killed", len(running))
            for worker in workers:
                worker.kill()
            await asyncio.wait(running)
