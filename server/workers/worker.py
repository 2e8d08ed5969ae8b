"""A process with one gateway: the only one, or a worker of a supervisor."""

from __future__ import annotations

import asyncio
import atexit
import functools
import gc
import logging
import os
import signal
import sys
from multiprocessing import parent_process
from multiprocessing.connection import Connection

from server.core.ledger import Ledger
from server.errors import StartFailed
from server.gateway import Gateway, Place
from server.observability import logs, tracing
from server.runners import daemon_threads
from server.settings import Settings
from server.versions.peers import Peers
from server.workers.shared import LISTENING, Shared

logger = logging.getLogger(__name__)

BEAT_EVERY_S = 1.0


def run_gateway(settings: Settings) -> int:
    """Returns the exit status once the gateway has been stopped."""
    try:
        serve(settings)
    except StartFailed as error:
        print(f"convoy serve: {error}", file=sys.stderr)
        return 1
    return 0


def run_worker(
    settings: Settings,
    shared: Shared,
    number: int,
    supervisor: Connection,
    is_replacement: bool,
) -> None:
    """The life of a worker's process. It tells its supervisor that its ports are open, or why it
    cannot start.
    """
    # A gateway without a supervisor does not import what asks it.
    from server.workers.sockets import SupervisorSocket

    gc.freeze()  # as `convoy serve` does in a process of one gateway
    logs.set_up(settings.log_format, settings.log_level)
    place = Place(
        ledger=Ledger(shared.ledger, number),
        peers=Peers(shared.notices, number),
        beat=functools.partial(beat, shared, number),
        announce=lambda: supervisor.send(LISTENING),
        ask_supervisor=SupervisorSocket(shared.supervisor_address).ask,
        is_replacement=is_replacement,
    )
    try:
        serve(settings, place)
    except StartFailed as error:
        supervisor.send(str(error))
        sys.exit(1)


def serve(settings: Settings, place: Place | None = None) -> None:
    """
    Raises:
        StartFailed: as `Gateway.run` does.
    """

    async def run() -> None:
        if place:
            drain_if_supervisor_ends()
            place.beat()
        await Gateway(settings, place).run()

    if settings.otlp_endpoint:
        tracing.set_up(settings.otlp_endpoint)
    asyncio.run(run())
    end_if_threads_are_busy()


def end_if_threads_are_busy() -> None:
    """With a model that could not be ended, the process would crash once its libraries end."""
    if daemon_threads.are_busy():
        atexit._run_exitfuncs()  # which write what waits of the log and of traces
        os._exit(0)


def beat(shared: Shared, number: int) -> None:
    """Once a second, for as long as the event loop turns."""
    shared.beats[number] += 1
    asyncio.get_running_loop().call_later(BEAT_EVERY_S, beat, shared, number)


def drain_if_supervisor_ends() -> None:
    """A supervisor that was killed leaves no worker behind that would keep its ports."""
    supervisor = parent_process()
    assert supervisor
    loop, ending = asyncio.get_running_loop(), supervisor.sentinel

    def drain() -> None:
        loop.remove_reader(ending)
        logger.error("the supervisor has ended")
        os.kill(os.getpid(), signal.SIGTERM)

    loop.add_reader(ending, drain)
