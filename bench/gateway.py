"""CPU time that the gateway spends on a request, beside a bare echo of the same framework.

    PYTHONPATH=. .venv/bin/python bench/gateway.py [--pairs 15] [--requests 400] [--json FILE]

The gateway is complete (keys, metrics, access log as JSON) and serves the shipped LeNet-5, but it
computes pixels and probabilities of an image only once. It hands them out again through one hop to
a thread each, as real ones are. What is left is the gateway's own work. The echo is grpc.aio, or
Starlette on uvicorn with two such hops; a bare refusal has none. The goals were set beside h11, the
parser in Python; httptools, in C, is the gateway's own.

Echo and gateway are measured in turns, and the ratio of each pair counts: the median with a 95 %
interval of the median. What is measured is the CPU time of the server's process, all its threads,
which neighbours disturb less than the time on a clock. Linux alone.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc

from bench.echoes import (
    CLASSIFY,
    HTTP_PATH,
    MODEL,
    REFUSE,
    in_a_thread,
    serve_grpc_echo,
    serve_h11_echo,
    serve_httptools_echo,
)
from bench.pictures import digit
from bench.ratios import median
from convoy.v1 import classifier_pb2 as pb

SECRET = "convoy_bench"
CONCURRENCY = 8  # requests that the client keeps open
HELD = b"an image that is never ready"  # occupies the only place of the gateway that refuses


# ---------------------------------------------------------------- servers, each a process


def serve_gateway(pipe: Connection, max_in_flight: int) -> None:
    from server.gateway import Gateway
    from server.observability import logs
    from server.settings import Settings

    reuse_computed_answers()
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w") as log:
        for stream in (sys.stdout, sys.stderr):  # a line per request would drown the table
            os.dup2(log.fileno(), stream.fileno())
        keys = Path(folder) / "keys.toml"
        keys.write_text(f'[bench]\nsha256 = "{hashlib.sha256(SECRET.encode()).hexdigest()}"\n')
        http, grpc_socket, admin = (f"unix:{folder}/{name}" for name in ("http", "grpc", "admin"))
        settings = Settings(
            models=[MODEL],
            http_address=http,
            grpc_address=grpc_socket,
            metrics_address=admin,
            api_keys=keys,
            max_in_flight=max_in_flight,
        )
        logs.set_up("json", "info")
        pipe.send((http, grpc_socket))
        asyncio.run(Gateway(settings).run())


def reuse_computed_answers() -> None:
    """Computes each preparation and each inference once; hands it out through a thread after."""
    from server.pipeline import Pipeline

    prepare, infer = Pipeline.prepare, Pipeline.infer
    prepared: dict[bytes, Any] = {}
    outcomes: dict[tuple[str, int], Any] = {}

    async def prepare_once(self: Pipeline, content: bytes, facts: Any, work: Any = None) -> Any:
        if content == HELD:
            await asyncio.Event().wait()
        if content not in prepared:
            prepared[content] = await prepare(self, content, facts, work)
        return await in_a_thread(prepared[content])

    async def infer_once(
        self: Pipeline, runner: Any, folder: str, image: Any, *deadline: Any, **outputs: Any
    ) -> Any:
        key = (folder, id(image))
        if key not in outcomes:
            outcomes[key] = await infer(self, runner, folder, image, *deadline, **outputs)
        return await in_a_thread(outcomes[key])

    # mypy forbids to replace a method of a class; here that is the point.
    Pipeline.prepare = prepare_once  # type: ignore[method-assign, assignment]
    Pipeline.infer = infer_once  # type: ignore[method-assign, assignment]


# ---------------------------------------------------------------- clients

Ask = Callable[[], Awaitable[bool]]  # one request; whether it was answered as it should be


@contextmanager
def running(serve: Callable[[Connection, int], None], places: int) -> Iterator[Server]:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, places))
    process.start()
    try:
        http, grpc_address = ours.recv()
        assert process.pid
        yield Server(process.pid, http.removeprefix("unix:"), grpc_address)
    finally:
        process.kill()
        process.join()


@dataclass(frozen=True)
class Server:
    pid: int
    http_path: str  # of its socket
    grpc_address: str

    def cpu_s(self) -> float:
        """CPU time of all threads of the process, also of those that have ended."""
        return time.clock_gettime(~self.pid << 3 | 2)  # clock_getcpuclockid(3) of Linux


class HttpClient:
    """Keep-alive connections that send the same bytes again and again."""

    def __init__(self, path: str, target: str, body: bytes, status: int) -> None:
        self._path, self._status = path, status
        head = f"POST {target} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {SECRET}\r\n"
        self._request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self) -> bool:
        reader, writer = await self._connection()
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        self._idle.append((reader, writer))
        return head.startswith(b"http/1.1 %d" % self._status)

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()  # the server has ended it, idle during a long turn of the other one
        return await asyncio.open_unix_connection(self._path)


class GrpcClient:
    def __init__(self, address: str, method: str, message: bytes, code: grpc.StatusCode) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._call: Any = self._channel.unary_unary(method)
        self._message, self._code = message, code
        self._metadata = (("authorization", f"Bearer {SECRET}"),)

    async def ask(self) -> bool:
        try:
            await self._call(self._message, metadata=self._metadata, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            return error.code() == self._code
        return self._code == grpc.StatusCode.OK


async def cpu_per_request_s(server: Server, ask: Ask, requests: int) -> float:
    async def one_after_the_other() -> None:
        for _ in range(requests // CONCURRENCY):
            if not await ask():
                raise RuntimeError("a request was not answered as it should be")

    before_s = server.cpu_s()
    await asyncio.gather(*(one_after_the_other() for _ in range(CONCURRENCY)))
    return (server.cpu_s() - before_s) / (requests // CONCURRENCY * CONCURRENCY)


# ---------------------------------------------------------------- what is compared


@dataclass(frozen=True)
class Comparison:
    """CPU time of one kind of request; ratios are the gateway's over the bare framework's."""

    name: str
    bare_ms: float
    gateway_ms: float
    ratio: float
    ratio_low: float  # 95 % interval of the median
    ratio_high: float
    goal: float


async def compare(
    name: str, goal: float, bare: tuple[Server, Ask], ours: tuple[Server, Ask], options: Any
) -> Comparison:
    pairs = []
    for number in range(options.pairs + 1):
        pair = [await cpu_per_request_s(*measured, options.requests) for measured in (bare, ours)]
        if number:  # the first one warms up
            pairs.append(pair)
        show(f"{name}: {number} of {options.pairs} pairs")
    ratio = median([ours_s / bare_s for bare_s, ours_s in pairs])
    bare_s, ours_s = (statistics.median(times) for times in zip(*pairs, strict=True))
    return Comparison(name, bare_s * 1e3, ours_s * 1e3, *ratio, goal)


async def ready(ask: Ask) -> None:
    for _ in range(600):
        try:
            if await ask():
                return
        except (OSError, asyncio.IncompleteReadError):  # the port is not open yet
            pass
        await asyncio.sleep(0.1)
    raise RuntimeError("the server was not ready within a minute")


async def measure(options: Any) -> list[Comparison]:
    image = digit()
    message = pb.ClassifyRequest(model=MODEL, image=pb.Image(content=image)).SerializeToString()
    ok, exhausted = grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED
    with ExitStack() as stack:
        grpc_echo = stack.enter_context(running(serve_grpc_echo, 0))
        h11_echo = stack.enter_context(running(serve_h11_echo, 0))
        httptools_echo = stack.enter_context(running(serve_httptools_echo, 0))
        gateway = stack.enter_context(running(serve_gateway, 256))
        full = stack.enter_context(running(serve_gateway, 1))

        def over_grpc(server: Server, method: str, code: grpc.StatusCode) -> tuple[Server, Ask]:
            return server, GrpcClient(server.grpc_address, method, message, code).ask

        def over_http(server: Server, target: str, status: int) -> tuple[Server, Ask]:
            return server, HttpClient(server.http_path, target, image, status).ask

        kinds = {
            ("gRPC, answered", 1.4): (
                over_grpc(grpc_echo, CLASSIFY, ok),
                over_grpc(gateway, CLASSIFY, ok),
            ),
            ("HTTP, answered", 1.6): (
                over_http(h11_echo, HTTP_PATH, 200),
                over_http(gateway, HTTP_PATH, 200),
            ),
            ("HTTP by httptools, answered", 1.6): (
                over_http(httptools_echo, HTTP_PATH, 200),
                over_http(gateway, HTTP_PATH, 200),
            ),
            ("gRPC, refused", 1.5): (
                over_grpc(grpc_echo, REFUSE, exhausted),
                over_grpc(full, CLASSIFY, exhausted),
            ),
            ("HTTP, refused", 1.5): (
                over_http(h11_echo, "/refuse", 429),
                over_http(full, HTTP_PATH, 429),
            ),
            ("HTTP by httptools, refused", 1.5): (
                over_http(httptools_echo, "/refuse", 429),
                over_http(full, HTTP_PATH, 429),
            ),
        }
        await ready(over_http(full, HTTP_PATH, 200)[1])
        held = asyncio.create_task(HttpClient(full.http_path, HTTP_PATH, HELD, 0).ask())
        comparisons = []
        for (name, goal), (bare, ours) in kinds.items():
            for _, ask in (bare, ours):
                await ready(ask)
            comparisons.append(await compare(name, goal, bare, ours, options))
        held.cancel()
        return comparisons


def show(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=15, help="measured in turns (default 15)")
    parser.add_argument("--requests", type=int, default=400, help="per turn (default 400)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args()
    comparisons = asyncio.run(measure(options))
    show("")
    print("CPU time per request           bare   gateway   ratio   95 % interval   goal")
    for row in comparisons:
        print(
            f"{row.name:27} {row.bare_ms:5.2f} ms {row.gateway_ms:5.2f} ms   {row.ratio:5.2f}"
            f"   {row.ratio_low:5.2f} to {row.ratio_high:4.2f}   {row.goal:4.1f}"
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in comparisons], indent=2))


if __name__ == "__main__":
    main()
