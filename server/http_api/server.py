"""An HTTP application on a port, and what its clients may not do.

uvicorn speaks HTTP; it has no time-outs for headers and bodies that trickle in, none for answers
that nobody takes, and no limit of connections. `BoundedProtocol` adds them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from server.http_api.app import problem
from server.network.addresses import is_socket, listen, remove_socket

if TYPE_CHECKING:
    from server.settings import Settings

logger = logging.getLogger(__name__)

# After the last answer is made, the time in which it may still leave.
FLUSH_TIMEOUT_S = 5.0
# A refused client has this long to read why.
LINGER_S = 1.0
# Connections that wait to be accepted while the event loop is busy.
BACKLOG = 2048
# In one turn of the event loop. When no file descriptor is left, asyncio logs each one that it
# would accept in this turn, and not the first alone, each second anew.
ACCEPTS_AT_ONCE = 1

# What clients of the contract read where no ServingError has been raised.
CODES = {
    HTTPStatus.BAD_REQUEST: ("INVALID_ARGUMENT", "MALFORMED_REQUEST"),
    HTTPStatus.REQUEST_TIMEOUT: ("DEADLINE_EXCEEDED", ""),
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: ("INVALID_ARGUMENT", ""),
    HTTPStatus.NOT_IMPLEMENTED: ("UNIMPLEMENTED", ""),
    HTTPStatus.SERVICE_UNAVAILABLE: ("UNAVAILABLE", ""),
}


class HttpServer:
    """One application on one port, open from the start. To be made inside the event loop.

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
    ) -> None:
        self._socket = listen(address, flag)
        host = address.rpartition(":")[0]
        port = self._socket.getsockname()[1]
        scheme = "https" if tls else "http"
        self.url = address if is_socket(address) else f"{scheme}://{host}:{port}"
        config = uvicorn.Config(
            application,
            http="h11",
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,  # anybody may write them
            timeout_graceful_shutdown=int(FLUSH_TIMEOUT_S),
        )
        self._server = UvicornServer(config, self._socket, settings, tls, note_refusal)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def renew(self, tls: ssl.SSLContext) -> None:
        """New connections see this certificate; those that are open go on with theirs."""
        await self._server.renew(tls)

    async def stop(self) -> None:
        self._server.should_exit = True
        await self._task
        if is_socket(self.url):
            remove_socket(self.url.removeprefix("unix:"))


class UvicornServer(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        door: socket.socket,
        settings: Settings,
        tls: ssl.SSLContext | None,
        note_refusal: Callable[[HTTPStatus], None],
    ) -> None:
        super().__init__(config)
        self._door = door
        self._settings = settings
        self._tls = tls
        self._note_refusal = note_refusal

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the gateway's; uvicorn would end on the second one."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's own has no way to bound the TLS handshake."""
        self.servers = [await self._accept(self._tls)]
        self.started = True

    async def renew(self, tls: ssl.SSLContext) -> None:
        # A context of its own, not new files in the old one: that would keep the old client CA,
        # and let its clients resume their sessions.
        self._tls = tls
        if not self.started:
            return
        after = await self._accept(tls)
        before, self.servers = self.servers, [after]
        for door in [door for server in before for door in server.sockets]:
            asyncio.get_running_loop().remove_reader(door.fileno())
        await asyncio.sleep(0)  # a server that is closed drops what it has accepted just now
        for server in before:
            server.close()

    async def _accept(self, tls: ssl.SSLContext | None) -> asyncio.Server:
        server = await asyncio.get_running_loop().create_server(
            self._make_protocol,
            sock=self._door.dup(),
            ssl=tls,
            ssl_handshake_timeout=self._settings.header_timeout_s if tls else None,
            backlog=ACCEPTS_AT_ONCE,
        )
        self._door.listen(BACKLOG)
        return server

    def _make_protocol(self) -> BoundedProtocol:
        return BoundedProtocol(
            self.config,
            self.server_state,
            self.lifespan.state,
            self._settings,
            self._note_refusal,
        )


class BoundedProtocol(H11Protocol):
    """One connection, whose client must be done with each step in time."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        settings: Settings,
        note_refusal: Callable[[HTTPStatus], None],
    ) -> None:
        super().__init__(config, server_state, app_state)
        self.conn = StrictConnection(settings.max_header_bytes)
        self._settings = settings
        self._note_refusal = note_refusal
        self._waits_for = ""  # "headers", "body" or nothing
        self._wait: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._body_began_s = 0.0
        self._body_bytes = 0
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._settings.max_connections:
            most = self._settings.max_connections
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{most} connections are open, no more")
            transport.close()
        else:
            self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        if self._is_refused or self.transport.is_closing():
            return
        self._body_bytes += len(data)
        super().data_received(data)

    def handle_events(self) -> None:
        super().handle_events()
        if self.conn.their_state is h11.SEND_BODY:
            self._wait_for_body()
        elif self.conn.their_state is h11.IDLE and not self._is_between_requests():
            self._unset_keepalive_if_required()
            self._wait_for_headers()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self.resume_writing()
        super().connection_lost(exc)

    # ------------------------------------------------------------ who takes too long

    def _is_between_requests(self) -> bool:
        """Then uvicorn's own timer runs, which ends a connection that stays idle."""
        return self.timeout_keep_alive_task is not None and not self.conn.trailing_data[0]

    def _wait_for_headers(self) -> None:
        # Once for a request: a byte now and then buys no time.
        if self._waits_for != "headers":
            self._wait_until(self.loop.time() + self._settings.header_timeout_s, "headers")

    def _wait_for_body(self) -> None:
        """Until the next piece is due, and no longer than a body at the slowest rate takes."""
        now_s, patience_s = self.loop.time(), self._settings.body_timeout_s
        if self._waits_for != "body":
            self._body_began_s, self._body_bytes = now_s, 0
        earned_s = self._body_bytes / self._settings.min_body_bytes_per_s
        self._wait_until(min(now_s, self._body_began_s + earned_s) + patience_s, "body")

    def _wait_until(self, due_s: float, what: str) -> None:
        self._stop_waiting()
        self._waits_for = what
        self._wait = self.loop.call_at(due_s, self._lose_patience)

    def _stop_waiting(self) -> None:
        self._waits_for = ""
        if self._wait:
            self._wait.cancel()

    def _lose_patience(self) -> None:
        what, self._waits_for = self._waits_for, ""
        if what == "body" and self.flow.read_paused:
            self._wait_for_body()  # it is we who do not read
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the {what} of the request came too slowly")

    def pause_writing(self) -> None:
        super().pause_writing()
        earned_s = self.transport.get_write_buffer_size() / self._settings.min_body_bytes_per_s
        patience_s = self._settings.body_timeout_s + earned_s
        self._stall = self.loop.call_later(patience_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall:
            self._stall.cancel()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._abort_soon()

    # ------------------------------------------------------------ refusals

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls it while it handles the error of h11, which knows the status."""
        error = sys.exception()
        assert isinstance(error, h11.RemoteProtocolError)
        self._refuse(HTTPStatus(error.error_status_hint), str(error))

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """For the application, the client has gone; the client reads why, and is gone."""
        logger.info("refused: %s", detail, extra={"status": int(status)})
        self._stop_waiting()
        self._is_refused = True
        self._answer(status, detail)
        if self.cycle:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.transport.can_write_eof():
            # To close with bytes unread would reset the connection, and the answer with it.
            self.transport.write_eof()
        else:
            self.transport.close()
        self._abort_soon()

    def _answer(self, status: HTTPStatus, detail: str) -> None:
        self._note_refusal(status)
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return  # an answer is on its way already
        answer = problem(status, *CODES[status], detail, {"connection": "close"})
        head = h11.Response(
            status_code=status, headers=answer.raw_headers, reason=status.phrase.encode()
        )
        with contextlib.suppress(h11.LocalProtocolError):  # a HEAD has no body
            for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")

    def _abort_soon(self) -> None:
        """A client that takes nothing would keep a closing connection for ever."""
        self.loop.call_later(LINGER_S, self.transport.abort)


class StrictConnection(h11.Connection):
    """h11 bounds headers that are not whole yet; here also those that came in one piece."""

    def __init__(self, max_header_bytes: int) -> None:
        super().__init__(h11.SERVER, max_header_bytes)
        self._max_header_bytes = max_header_bytes

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """
        Raises:
            h11.RemoteProtocolError: what came is no request that can be trusted.
        """
        event = super().next_event()
        if isinstance(event, h11.Request):
            size = len(event.target) + sum(
                len(name) + len(value) + 4 for name, value in event.headers
            )
            if size > self._max_header_bytes:
                raise h11.RemoteProtocolError("the headers are too large", error_status_hint=431)
            names = {name for name, _ in event.headers}
            if {b"content-length", b"transfer-encoding"} <= names:
                # A proxy before us may have believed the other one.
                raise h11.RemoteProtocolError("content-length and transfer-encoding, both")
        return event
