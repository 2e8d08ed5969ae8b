"""What a client may not do to the HTTP server, over the wire."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from server.http_api.server import HttpServer
from server.settings import Settings

HEADER_TIMEOUT_S = 0.4
BODY_TIMEOUT_S = 0.6
SETTINGS = Settings(
    header_timeout_s=HEADER_TIMEOUT_S,
    body_timeout_s=BODY_TIMEOUT_S,
    max_connections=8,
    max_header_bytes=4096,
    min_body_bytes_per_s=1 << 20,
)
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"


class Application:
    """Answers with the size of what it got; remembers whose body did not come."""

    def __init__(self) -> None:
        self.given_up = asyncio.Event()
        self.slow_began, self.slow_ends = asyncio.Event(), asyncio.Event()
        self.counted = 0
        self.starlette = Starlette(
            routes=[
                Route("/", self.measure, methods=["GET", "POST"]),
                Route("/large", self.large),
                Route("/early", self.early, methods=["POST"]),
                Route("/fault", self.fault),
                Route("/slow", self.slow),
                Route("/count", self.count, methods=["POST"]),
                Route("/echo", self.echo, methods=["POST"]),
            ]
        )

    async def measure(self, request: Request) -> Response:
        try:
            return PlainTextResponse(str(len(await request.body())))
        except ClientDisconnect:
            self.given_up.set()
            raise

    async def large(self, request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                for _ in range(64):  # more than the kernel holds for a client that reads nothing
                    yield bytes(1 << 20)
                    await asyncio.sleep(0)
            except asyncio.CancelledError:
                self.given_up.set()
                raise

        return StreamingResponse(pieces())

    async def fault(self, request: Request) -> Response:
        raise RuntimeError(f"secret of {__file__}")

    async def slow(self, request: Request) -> Response:
        self.slow_began.set()
        await self.slow_ends.wait()
        return PlainTextResponse("slow")

    async def count(self, request: Request) -> Response:
        self.counted += 1
        return await self.measure(request)

    async def echo(self, request: Request) -> Response:
        """The body, and the names of headers but the host's."""
        body = (await request.body()).decode()
        return PlainTextResponse(" ".join([body, *(set(request.headers) - {"host"})]))

    async def early(self, request: Request) -> Response:
        return PlainTextResponse("no", status_code=413)


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def application() -> Application:
    return Application()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(application: Application) -> AsyncIterator[HttpServer]:
    server = HttpServer(application.starlette, "127.0.0.1:0", "--http-address", SETTINGS)
    async with httpx.AsyncClient() as client:
        assert (await client.get(server.url)).text == "0"
    yield server
    await server.stop()


Connect = Callable[[], "contextlib.AbstractAsyncContextManager[Connection]"]


class Connection:
    """A client that says what no library would."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def say(self, text: bytes) -> None:
        self._writer.write(text)
        await self._writer.drain()

    async def drip(self, text: bytes, every_s: float) -> None:
        with contextlib.suppress(ConnectionError):
            for byte in text:
                await self.say(bytes([byte]))
                await asyncio.sleep(every_s)

    async def hear_some(self) -> bytes:
        return await asyncio.wait_for(self._reader.read(1 << 16), 10)

    async def hear(self) -> bytes:
        """All until the server closes; a reset is a close."""
        heard = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := await asyncio.wait_for(self._reader.read(1 << 16), 10):
                heard += piece
        return heard


@contextlib.asynccontextmanager
async def connection_to(server: HttpServer) -> AsyncIterator[Connection]:
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.fixture
def connect(server: HttpServer) -> Connect:
    return lambda: connection_to(server)


def refusal(answer: bytes) -> tuple[int, str, str]:
    """Status, code and reason of a problem document, which ends its connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().lower().splitlines()
    assert "connection: close" in lines and "content-type: application/problem+json" in lines
    problem = json.loads(body)
    assert problem["detail"] == problem["error"]
    assert int(lines[0].split()[1]) == problem["status"]
    return problem["status"], problem["code"], problem["reason"]


async def test_headers_that_trickle_in_are_timed_out(connect: Connect) -> None:
    async with connect() as client:
        began_s = time.monotonic()
        dripping = asyncio.create_task(client.drip(b"GET / HTTP/1.1\r\nhost: x\r\n" * 9, 0.05))
        assert refusal(await client.hear()) == (408, "DEADLINE_EXCEEDED", "")
        assert HEADER_TIMEOUT_S * 0.9 < time.monotonic() - began_s < HEADER_TIMEOUT_S + 1
        await dripping


async def test_a_connection_that_says_nothing_is_closed(connect: Connect) -> None:
    async with connect() as client:
        assert refusal(await client.hear())[0] == 408


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", POST % 2 + b"ab"])
async def test_the_headers_of_a_second_request_are_timed_too(
    connect: Connect, first: bytes
) -> None:
    async with connect() as client:
        await client.say(first + b"GET")
        await client.say(b" ")
        answers = (await client.hear()).split(b"HTTP/1.1 ")
        assert [answer[:3] for answer in answers[1:]] == [b"200", b"408"]


async def test_a_body_that_stops_is_timed_out_and_the_application_told(
    connect: Connect, application: Application
) -> None:
    application.given_up.clear()
    async with connect() as client:
        await client.say(POST % 100 + b"some of it")
        assert refusal(await client.hear()) == (408, "DEADLINE_EXCEEDED", "")
        assert await asyncio.wait_for(application.given_up.wait(), 0.5)  # sooner than it is closed


async def test_a_body_that_trickles_in_is_timed_out(connect: Connect) -> None:
    """Each piece comes in time; all of it would not."""
    async with connect() as client:
        began_s = time.monotonic()
        await client.say(POST % 1000)
        dripping = asyncio.create_task(client.drip(bytes(1000), 0.1))
        assert refusal(await client.hear())[0] == 408
        assert time.monotonic() - began_s > BODY_TIMEOUT_S * 0.9
        await dripping


async def test_a_body_that_keeps_the_rate_may_take_its_time(connect: Connect) -> None:
    size, pieces = 4 << 20, 32
    async with connect() as client:
        await client.say(b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n")
        await client.say(b"content-length: %d\r\n\r\n" % size)
        for _ in range(pieces):
            await client.say(bytes(size // pieces))
            await asyncio.sleep(2 * BODY_TIMEOUT_S / pieces)
        assert (await client.hear()).endswith(str(size).encode())


async def test_what_comes_after_an_early_answer_is_timed_too(connect: Connect) -> None:
    async with connect() as client:
        await client.say((POST % 100).replace(b"/", b"/early", 1))
        dripping = asyncio.create_task(client.drip(bytes(100), 0.1))
        assert (await client.hear()).startswith(b"HTTP/1.1 413")
        assert not dripping.done()
        await dripping
    async with connect() as client:
        await client.say((POST % 2).replace(b"/", b"/early", 1))
        await asyncio.sleep(0.1)
        await client.say(b"ab")  # the body ends, and the next request never begins
        assert (await client.hear()).startswith(b"HTTP/1.1 413")


async def test_an_answer_that_nobody_takes_is_given_up(application: Application) -> None:
    application.given_up.clear()
    settings = SETTINGS.model_copy(update={"min_body_bytes_per_s": 1 << 30})
    server = HttpServer(application.starlette, "127.0.0.1:0", "--http-address", settings)
    async with connection_to(server) as client:
        await client.say(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await asyncio.wait_for(application.given_up.wait(), 5)
    await server.stop()


HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
SLOW = HEAD.replace(b"/", b"/slow", 1) + b"\r\n"
LAST = HEAD + b"connection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("text", "status", "code", "reason"),
    [
        (HEAD + b"a: " + b"x" * 5000 + b"\r\n\r\n", 431, "INVALID_ARGUMENT", ""),
        (HEAD + b"a: " + b"x" * 5000, 431, "INVALID_ARGUMENT", ""),
        (HEAD + b"a: b\r\n" * 900 + b"\r\n", 431, "INVALID_ARGUMENT", ""),
        (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 431, "INVALID_ARGUMENT", ""),
        (b"hello\r\n\r\n", 400, "INVALID_ARGUMENT", "MALFORMED_REQUEST"),
        (HEAD + b"host: y\r\n\r\n", 400, "INVALID_ARGUMENT", "MALFORMED_REQUEST"),
        (HEAD + b"transfer-encoding: gzip\r\n\r\n", 501, "UNIMPLEMENTED", ""),
        # How one request is smuggled within another, past a proxy that reads them differently.
        (
            HEAD + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "INVALID_ARGUMENT",
            "MALFORMED_REQUEST",
        ),
        (
            HEAD + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
            400,
            "INVALID_ARGUMENT",
            "MALFORMED_REQUEST",
        ),
        (
            HEAD + b"content-length: 4\r\ncontent-length: 5\r\n\r\n",
            400,
            "INVALID_ARGUMENT",
            "MALFORMED_REQUEST",
        ),
        *(
            (HEAD + headers + b"\r\n\r\n", 400, "INVALID_ARGUMENT", "MALFORMED_REQUEST")
            for headers in (
                b"content-length: 0\r\ncontent-length: 0",
                b"content-length: 0, 0",
                b"a: b\r\n c",
                b"a: b\r\n\tc",
                b"a\x00: b",
            )
        ),
        (
            HEAD.replace(b"1.1", b"1.0") + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "INVALID_ARGUMENT",
            "MALFORMED_REQUEST",
        ),
        (HEAD + b"content-length: +4\r\n\r\n", 400, "INVALID_ARGUMENT", "MALFORMED_REQUEST"),
        (HEAD + b"content-length : 4\r\n\r\n", 400, "INVALID_ARGUMENT", "MALFORMED_REQUEST"),
        *(
            (text, 400, "INVALID_ARGUMENT", "MALFORMED_REQUEST")
            for text in (
                CHUNKED + b"zz\r\n",
                CHUNKED + b"2\nab\r\n",
                CHUNKED + b"2;" + b"x" * 5000,
                CHUNKED + b"0\r\n" + b"a: b\r\n" * 900,
                HEAD.replace(b"\r", b"") + b"\n",
                HEAD + b"\n",
                b"GET / HTTP/1.1\r\n\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                HEAD.replace(b"1.1", b"2.0") + b"\r\n",
                HEAD.replace(b"1.1", b"0.9") + b"\r\n",
                b"CONNECT x:443 HTTP/1.1\r\nhost: x:443\r\n\r\n",
                b"CONNECT / HTTP/1.1\r\nhost: x\r\n\r\n",
                HEAD.replace(b"/", b"/\xff", 1) + b"\r\n",
                b"\x16\x03\x01\x02\x00\x01\x00",
                b"\r\n" * 20,
            )
        ),
    ],
    ids=[
        "large header",
        "large header, unfinished",
        "many headers",
        "long path",
        "no HTTP",
        "two hosts",
        "gzip",
        "length and chunks",
        "chunks and length",
        "two lengths",
        "two equal lengths",
        "a list of equal lengths",
        "folded by a space",
        "folded by a tab",
        "a control character in a name",
        "chunks in HTTP/1.0",
        "odd length",
        "space in a name",
        "odd chunk",
        "a chunk's size without CR",
        "a chunk's large extension",
        "large trailers",
        "lines without CR",
        "a line without CR",
        "no host",
        "the preface of HTTP/2",
        "HTTP/2",
        "HTTP/0.9",
        "a tunnel",
        "a tunnel to a path",
        "a byte beyond ASCII in a path",
        "a TLS handshake",
        "empty lines",
    ],
)
async def test_what_is_no_sound_request_is_refused(
    connect: Connect, text: bytes, status: int, code: str, reason: str
) -> None:
    async with connect() as client:
        await client.say(text)
        assert refusal(await client.hear()) == (status, code, reason)


async def test_more_connections_than_allowed_are_refused_until_one_ends(
    connect: Connect, server: HttpServer
) -> None:
    async with contextlib.AsyncExitStack() as open_ones:
        for _ in range(SETTINGS.max_connections):
            await open_ones.enter_async_context(connect())
        async with connect() as client:
            assert refusal(await client.hear()) == (503, "UNAVAILABLE", "")
    async with httpx.AsyncClient() as patient, asyncio.timeout(10):
        # Until the server has seen one end.
        while (await patient.get(server.url)).status_code == 503:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert (await patient.get(server.url)).status_code == 200


async def test_a_fault_of_the_application_is_told_to_nobody(server: HttpServer) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{server.url}/fault")
        assert (answer.status_code, answer.text) == (500, "Internal Server Error")


async def test_many_requests_over_one_connection_are_answered(connect: Connect) -> None:
    async with connect() as client:
        await client.say((POST % 2 + b"ab") * 50 + LAST)
        assert (await client.hear()).count(b"HTTP/1.1 200") == 51


async def test_a_request_is_not_read_before_the_one_before_it_is_answered(
    connect: Connect, application: Application
) -> None:
    """Or a client could have many of its bodies held, and counted as one."""
    async with connect() as client:
        await client.say(SLOW + (POST.replace(b"/", b"/count", 1) % 2 + b"ab") * 50 + LAST)
        await asyncio.wait_for(application.slow_began.wait(), 5)
        await asyncio.sleep(0.1)  # in which others would be read
        assert application.counted == 0
        application.slow_ends.set()
        assert (await client.hear()).count(b"HTTP/1.1 200") == 52
    assert application.counted == 50


async def test_a_body_in_chunks_is_joined_and_its_trailers_are_no_headers(
    connect: Connect,
) -> None:
    async with connect() as client:
        chunks = b"2;a=b\r\nab\r\n3\r\ncde\r\n0\r\nx-late: 1\r\n\r\n"
        await client.say(CHUNKED.replace(b"/", b"/echo", 1) + chunks)
        await asyncio.sleep(0.1)
        await client.say(LAST)
        first, second = (await client.hear()).split(b"HTTP/1.1 200 OK")[1:]
    assert first.endswith(b"abcde transfer-encoding")
    assert second.endswith(b"\r\n\r\n0")


async def test_what_follows_chunks_in_one_piece_is_answered_on_another_connection(
    connect: Connect,
) -> None:
    """Only the parser knows where chunks end, and it would read on."""
    async with connect() as client:
        await client.say(CHUNKED + b"2\r\nab\r\n0\r\n\r\n" + HEAD + b"\r\n")
        answer = await client.hear()
    assert b"connection: close" in answer
    assert answer.endswith(b"\r\n\r\n2") and answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
async def test_a_request_that_offers_an_upgrade_is_read_with_its_body(
    connect: Connect, protocol: bytes
) -> None:
    """As Java's client sends each of its first requests."""
    offer = b"connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + protocol + b"\r\nhost:"
    async with connect() as client:
        await client.say((POST % 2).replace(b"host:", offer) + b"ab" + LAST)
        answers = (await client.hear()).split(b"HTTP/1.1 200 OK")[1:]
    assert [answer[-1:] for answer in answers] == [b"2", b"0"]


async def test_a_target_with_scheme_and_host_is_a_path(connect: Connect) -> None:
    async with connect() as client:
        await client.say(LAST.replace(b"/", b"http://x/", 1))
        assert (await client.hear()).startswith(b"HTTP/1.1 200")


async def test_a_body_is_asked_for_where_the_client_waits_for_it(connect: Connect) -> None:
    async with connect() as client:
        await client.say((POST % 2).replace(b"host:", b"expect: 100-continue\r\nhost:"))
        assert await client.hear_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.say(b"ab" + LAST)
        assert (await client.hear()).count(b"HTTP/1.1 200") == 2
