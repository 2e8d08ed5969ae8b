"""An HTTP application on a port, with bounds on what a client may hold.

uvicorn has no time-outs for headers and bodies that trickle in, none for answers that a client does
not read, and no limit on connections. `BoundedProtocol` adds them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from server.core.ledger import Ledger
from server.errors import cut
from server.http_api.corked import CorkedTransport
from server.http_api.framing import Reads, StrictProtocol
from server.http_api.problems import UNREAD, problem
from server.network.addresses import is_socket, listen, remove_unused_socket

if TYPE_CHECKING:
    from server.settings import Settings

logger = logging.getLogger(__name__)

# How long the last answers may take to leave after a shutdown.
FLUSH_TIMEOUT_S = 5.0
# How long a refused client has to read the reason.
LINGER_S = 1.0
# Connections that wait to be accepted while the event loop is busy.
BACKLOG = 2048
# In one turn of the event loop. When no file descriptor is left, asyncio logs every connection that
# it would accept in this turn, again each second.
ACCEPTS_AT_ONCE = 1


class HttpServer:
    """One application on one port, open once constructed, inside the event loop.

    The workers of one gateway share the port, and count its connections in their ledger.

    Raises:
        StartFailed: the address cannot be listened on.
    """

    def __init__(
        self,
        application: ASGIApp,
        address: str,
        flag: str,
        settings: Settings,
        tls: ssl.SSLContext | None = None,
        note_refusal: Callable[[HTTPStatus], None] = lambda _: None,
        ledger: Ledger | None = None,
    ) -> None:
        self._socket = listen(address, flag, shares_port=ledger is not None)
        host = address.rpartition(":")[0]
        port = self._socket.getsockname()[1]
        scheme = "https" if tls else "http"
        self.url = address if is_socket(address) else f"{scheme}://{host}:{port}"
        config = uvicorn.Config(
            application,
            http="httptools",
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,  # any client can write them
            timeout_graceful_shutdown=int(FLUSH_TIMEOUT_S),
        )
        self._server = UvicornServer(config, self._socket, settings, tls, note_refusal, ledger)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def renew(self, tls: ssl.SSLContext) -> None:
        """New connections get this certificate; open ones keep theirs."""
        await self._server.renew(tls)

    async def stop(self) -> None:
        self._server.should_exit = True
        await self._task
        if is_socket(self.url):
            with contextlib.suppress(OSError):  # already that of the next gateway
                remove_unused_socket(self.url.removeprefix("unix:"))


class UvicornServer(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        settings: Settings,
        tls: ssl.SSLContext | None,
        note_refusal: Callable[[HTTPStatus], None],
        ledger: Ledger | None,
    ) -> None:
        super().__init__(config)
        self._listener = listener
        self._settings = settings
        self._tls = tls
        self._note_refusal = note_refusal
        self._ledger = ledger

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The gateway handles signals; uvicorn would end on the second one."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's own cannot bound the TLS handshake."""
        self.servers = [await self._accept(self._tls)]
        self.started = True

    async def renew(self, tls: ssl.SSLContext) -> None:
        # A new context instead of new files in the old one, which would keep the old client CA and
        # let its clients resume their sessions.
        self._tls = tls
        if not self.started:
            return
        after = await self._accept(tls)
        before, self.servers = self.servers, [after]
        for listener in [listener for server in before for listener in server.sockets]:
            asyncio.get_running_loop().remove_reader(listener.fileno())
        await asyncio.sleep(0)  # a closed server drops what it has just accepted
        for server in before:
            server.close()

    async def _accept(self, tls: ssl.SSLContext | None) -> asyncio.Server:
        server = await asyncio.get_running_loop().create_server(
            self._make_protocol,
            sock=self._listener.dup(),
            ssl=tls,
            ssl_handshake_timeout=self._settings.header_timeout_s if tls else None,
            backlog=ACCEPTS_AT_ONCE,
        )
        self._listener.listen(BACKLOG)
        return server

    def _make_protocol(self) -> BoundedProtocol:
        return BoundedProtocol(
            self.config,
            self.server_state,
            self.lifespan.state,
            self._settings,
            self._note_refusal,
            self._ledger,
        )


class BoundedProtocol(StrictProtocol):
    """One connection, whose client must finish each step in time."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        settings: Settings,
        note_refusal: Callable[[HTTPStatus], None],
        ledger: Ledger | None,
    ) -> None:
        super().__init__(config, server_state, app_state, settings.max_header_bytes)
        self._departure: asyncio.Future[None] = self.loop.create_future()
        self.app_state = {**app_state, "departure": self._watch_departure}
        self._settings = settings
        self._note_refusal = note_refusal
        self._ledger = ledger
        self._waits_for = ""  # "headers", "body" or nothing
        self._wait: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._body_began_s = 0.0
        self._body_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        corked: Any = CorkedTransport(transport, self.loop)
        super().connection_made(corked)
        most = self._settings.max_connections
        if self._count_connections() > most:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, f"too many connections ({most})")
            self.transport.close()
        else:
            self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        self._body_bytes += len(data)
        super().data_received(data)

    def read_on(self) -> None:
        super().read_on()
        if self.reads is Reads.BODY:
            self._wait_for_body()
        elif self.reads is Reads.HEAD and not self._is_between_requests():
            self._unset_keepalive_if_required()
            self._wait_for_headers()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self.resume_writing()
        super().connection_lost(exc)
        self._count_connections()
        self._note_departure()

    def _count_connections(self) -> int:
        """Of all workers."""
        own = len(self.connections)
        if self._ledger is None:
            return own
        self._ledger.hold_connections(own)
        return own + self._ledger.others_connections()

    # ------------------------------------------------------------ time-outs

    def _is_between_requests(self) -> bool:
        """If so, uvicorn's own timer runs, which ends an idle connection."""
        return self.timeout_keep_alive_task is not None and not self.unread

    def _wait_for_headers(self) -> None:
        # Once per request: a byte now and then does not extend it.
        if self._waits_for != "headers":
            self._wait_until(self.loop.time() + self._settings.header_timeout_s, "headers")

    def _wait_for_body(self) -> None:
        """Until the next piece is due, but not longer than a body at the minimum rate takes."""
        now_s, timeout_s = self.loop.time(), self._settings.body_timeout_s
        if self._waits_for != "body":
            self._body_began_s, self._body_bytes = now_s, 0
        earned_s = self._body_bytes / self._settings.min_body_bytes_per_s
        self._wait_until(min(now_s, self._body_began_s + earned_s) + timeout_s, "body")

    def _wait_until(self, due_s: float, what: str) -> None:
        self._stop_waiting()
        self._waits_for = what
        self._wait = self.loop.call_at(due_s, self._time_out)

    def _stop_waiting(self) -> None:
        self._waits_for = ""
        if self._wait:
            self._wait.cancel()

    def _time_out(self) -> None:
        what, self._waits_for = self._waits_for, ""
        if what == "body" and self.flow.read_paused:
            self._wait_for_body()  # the reader here is slow, not the client
        else:
            self.refuse(HTTPStatus.REQUEST_TIMEOUT, f"the {what} of the request arrived too slowly")

    def pause_writing(self) -> None:
        super().pause_writing()
        earned_s = self.transport.get_write_buffer_size() / self._settings.min_body_bytes_per_s
        timeout_s = self._settings.body_timeout_s + earned_s
        self._stall = self.loop.call_later(timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall:
            self._stall.cancel()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._abort_soon()

    # ------------------------------------------------------------ refusals

    def refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answers the client, then tells the application that it disconnected."""
        detail = cut(detail)
        logger.info("refused: %s", detail, extra={"status": int(status)})
        self._stop_waiting()
        self._answer(status, detail)
        self.reads = Reads.NOTHING
        if self.cycle:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._note_departure()
        if self.transport.can_write_eof():
            # Closing with unread bytes would reset the connection and lose the answer.
            self.transport.write_eof()
        else:
            self.transport.close()
        self._abort_soon()

    def _watch_departure(self) -> asyncio.Future[None]:
        """Done when the client has left; an application that works need not wait for messages too.

        Reads on: uvicorn pauses after a large piece of a body, and would not notice the end.
        """
        self.flow.resume_reading()
        return self._departure

    def _note_departure(self) -> None:
        if not self._departure.done():
            self._departure.set_result(None)

    def _answer(self, status: HTTPStatus, detail: str) -> None:
        self._note_refusal(status)
        if self.reads is Reads.BODY and self.cycle.response_started:
            return
        answer = problem(status, *UNREAD[status], detail, {"connection": "close"})
        lines = [b"HTTP/1.1 %d %s" % (status, status.phrase.encode())]
        lines += [name + b": " + value for name, value in answer.raw_headers]
        self.transport.write(b"\r\n".join([*lines, b"", bytes(answer.body)]))

    def _abort_soon(self) -> None:
        """A client that reads nothing would keep a closing connection open forever."""
        self.loop.call_later(LINGER_S, self.transport.abort)
