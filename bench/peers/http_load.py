"""A closed loop over HTTP/1.1: connections that send ready requests, one after the other."""

from __future__ import annotations

import asyncio
import bisect
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

TIMEOUT_S = 60.0  # for one answer


@dataclass(frozen=True)
class Load:
    """What a server answered within a measured time."""

    per_s: float
    p50_ms: float
    p99_ms: float
    answers: int


class Answer(NamedTuple):
    at_s: float  # on the clock of time.monotonic()
    took_s: float


class RequestFailed(Exception):
    """A server did not answer with 200."""


def request_bytes(path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    lines = {"host": "localhost", "content-length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, request: bytes) -> bytes:
        """Returns head and body of the answer.

        Raises:
            RequestFailed: the status is not 200.
        """
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        body = await self._reader.readexactly(int(length))
        if not head.startswith(b"HTTP/1.1 200"):
            raise RequestFailed(f"{head.splitlines()[0].decode()}: {body[:300]!r}")
        return head + body

    def close(self) -> None:
        self._writer.close()


async def connect(port: int) -> Connection:
    return Connection(*await asyncio.open_connection("127.0.0.1", port))


async def ask_once(port: int, request: bytes) -> bytes:
    """
    Raises:
        RequestFailed: the status is not 200.
        OSError, EOFError, TimeoutError: the server is not there, or not yet.
    """
    async with asyncio.timeout(TIMEOUT_S):
        connection = await connect(port)
        try:
            return await connection.ask(request)
        finally:
            connection.close()


async def closed_loop(
    port: int, requests: Sequence[bytes], concurrency: int, warm_s: float, seconds: float
) -> Load:
    """Asks for `warm_s`, then measures for `seconds`; each part has an answer per connection.

    Raises:
        RequestFailed: an answer was not 200.
        OSError, EOFError, TimeoutError: the server ended, or hangs.
    """
    answers: list[Answer] = []
    turns = itertools.cycle(requests)
    begin_s = time.monotonic() + warm_s

    def is_over() -> bool:
        if time.monotonic() < begin_s + seconds:
            return False
        return len(answers) - n_warm(answers, begin_s, concurrency) >= concurrency

    async with asyncio.timeout(warm_s + seconds + TIMEOUT_S):
        connections = [await connect(port) for _ in range(concurrency)]
        try:
            await asyncio.gather(*(ask(each, turns, answers, is_over) for each in connections))
        finally:
            for connection in connections:
                connection.close()
    return summarise(answers, n_warm(answers, begin_s, concurrency))


async def ask(
    connection: Connection,
    requests: Iterator[bytes],
    answers: list[Answer],
    is_over: Callable[[], bool],
) -> None:
    while True:
        sent_s = time.monotonic()
        await connection.ask(next(requests))
        if is_over():  # what is in flight by then, and followed by nothing, does not count
            return
        answered_s = time.monotonic()
        answers.append(Answer(answered_s, answered_s - sent_s))


def n_warm(answers: Sequence[Answer], begin_s: float, concurrency: int) -> int:
    """How many do not count: a server that computes large batches answers late, and all at once."""
    return max(concurrency, bisect.bisect_right(answers, begin_s, key=lambda answer: answer.at_s))


def summarise(answers: Sequence[Answer], warm: int) -> Load:
    """Counts from one answer to another: answers come in batches, which the ends would cut."""
    measured = answers[warm:]
    took_ms = [answer.took_s * 1e3 for answer in measured]
    p50_ms, p99_ms = (float(value) for value in np.percentile(took_ms, (50, 99)))
    seconds = measured[-1].at_s - answers[warm - 1].at_s
    return Load(len(measured) / seconds, p50_ms, p99_ms, len(measured))
