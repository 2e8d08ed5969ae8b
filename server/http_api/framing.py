"""Where one HTTP/1.1 request ends and what it is, read strictly: a proxy may read otherwise."""

from __future__ import annotations

import enum
import re
from http import HTTPStatus
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

END_OF_HEAD = re.compile(rb"\n\r?\n")
UPGRADE = re.compile(rb"\r\nupgrade:[^\r\n]*", re.IGNORECASE)


class Reads(enum.Enum):
    HEAD = enum.auto()  # of the next request
    BODY = enum.auto()
    ANSWER = enum.auto()  # nothing, until the request is answered
    NOTHING = enum.auto()  # until the connection is closed


class NextRequestBegan(Exception):
    """In a piece that should end with the request before."""


class Refused(Exception):
    """The client sent what is no sound request."""

    def __init__(self, detail: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(detail)
        self.status = status


class StrictProtocol(HttpToolsProtocol):
    """One connection, whose requests are read one after another, each when the last is answered.

    httptools reads all that it is given, so it is given one head or what is left of one body. Its
    llhttp refuses folded headers, odd line ends, two lengths, and a length beside chunks; the rest
    is refused here.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        max_header_bytes: int,
    ) -> None:
        super().__init__(config, server_state, app_state)
        self.reads = Reads.HEAD
        self.unread = bytearray()
        self._max_header_bytes = max_header_bytes
        self._is_in_head = False
        self._body_left: int | None = 0  # None: chunks, which say themselves where they end
        self._bytes_of_chunks = 0  # sizes, extensions, trailers since the last piece of a body

    def refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answers with the status, and reads no more; how is a subclass's."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        if self.reads is Reads.NOTHING or self.transport.is_closing():
            return
        self.unread += data
        self.read_on()

    def read_on(self) -> None:
        if self.unread:
            self._unset_keepalive_if_required()
        try:
            while self.unread and self._read_piece():
                pass
        except (Refused, httptools.HttpParserError) as error:
            self._meet(error)
        if self.unread and self.reads is Reads.ANSWER:
            self.flow.pause_reading()

    def _meet(self, error: Exception) -> None:
        """httptools hides what a callback raised behind an error of its own."""
        cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else error
        match cause:
            case NextRequestBegan():
                self._end_after_answer()
            case Refused():
                self.refuse(cause.status, str(cause))
            case httptools.HttpParserError():
                self.refuse(HTTPStatus.BAD_REQUEST, str(cause))
            case _:
                self.refuse(HTTPStatus.BAD_REQUEST, "the target of the request is invalid")

    def _end_after_answer(self) -> None:
        self.reads = Reads.NOTHING
        self.unread.clear()
        self.cycle.keep_alive = False
        if self.cycle.response_complete:
            self.transport.close()

    def _read_piece(self) -> bool:
        """Whether there was one."""
        match self.reads:
            case Reads.HEAD:
                return self._read_head()
            case Reads.BODY:
                return self._read_body()
            case _:
                return False

    def _take(self, size: int) -> bytes:
        piece = bytes(self.unread[:size])
        del self.unread[:size]
        return piece

    # ------------------------------------------------------------ heads

    def _read_head(self) -> bool:
        end = END_OF_HEAD.search(self.unread)
        if (end.end() if end else len(self.unread)) > self._max_header_bytes:
            raise Refused("the headers are too large", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if not self.unread[:1].isalpha():  # such as a TLS handshake, which has no end of a head
            raise Refused("no HTTP request")
        if not end:
            return False
        # No upgrade is offered. llhttp would take what follows for another protocol, also a body.
        head = UPGRADE.sub(b"", self._take(end.end()))
        self._is_in_head = True
        self.parser.feed_data(head)
        self._is_in_head = False
        if self.reads is Reads.HEAD:
            raise Refused("the end of the headers is ambiguous")
        return True

    def on_message_begin(self) -> None:
        if not self._is_in_head:  # but after chunks, whose end only the parser finds
            raise NextRequestBegan
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:  # otherwise a trailer
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            raise Refused("CONNECT is not offered")
        self._body_left = _body_length(self.parser.get_http_version(), self.headers)
        self._bytes_of_chunks = 0
        super().on_headers_complete()
        self.reads = Reads.BODY

    # ------------------------------------------------------------ bodies

    def _read_body(self) -> bool:
        if self._body_left is None:
            return self._read_chunks()
        self.parser.feed_data(self._take(self._body_left))
        return True

    def _read_chunks(self) -> bool:
        piece = self._take(len(self.unread))
        self._bytes_of_chunks += len(piece)
        self.parser.feed_data(piece)
        if self._bytes_of_chunks > self._max_header_bytes:
            raise Refused("the sizes, extensions or trailers of chunks are too large")
        return False

    def on_body(self, body: bytes) -> None:
        self._bytes_of_chunks = 0
        if self._body_left is not None:
            self._body_left -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.reads = Reads.HEAD if self.cycle.response_complete else Reads.ANSWER

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.reads is Reads.ANSWER and not self.transport.is_closing():
            self.reads = Reads.HEAD
            self.read_on()


def _body_length(version: str, headers: list[tuple[bytes, bytes]]) -> int | None:
    """In bytes; None if it comes in chunks.

    Raises:
        Refused: a proxy in front could have read the headers otherwise.
    """
    hosts, lengths, codings = (
        [value for name, value in headers if name == wanted]
        for wanted in (b"host", b"content-length", b"transfer-encoding")
    )
    if version not in ("1.0", "1.1"):
        raise Refused(f"HTTP/{version} is not spoken here")
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        raise Refused(f"there must be one host header, not {len(hosts)}")
    if not codings:
        return int(lengths[0]) if lengths else 0
    if version == "1.0":
        raise Refused("transfer-encoding in HTTP/1.0")
    if [coding.lower() for coding in codings] != [b"chunked"]:
        raise Refused("only chunked is a transfer-encoding here", HTTPStatus.NOT_IMPLEMENTED)
    return None
