"""A head leaves together with its body, and nothing is held for longer than a turn of the loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from server.http_api.corked import MAX_HELD_BYTES, CorkedTransport


class Ends:
    """A corked transport, and the messages that arrive at the other end, one per system call."""

    def __init__(self, transport: asyncio.Transport, other: socket.socket) -> None:
        self.corked = CorkedTransport(transport, asyncio.get_running_loop())
        self._other = other

    async def receive(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self._other, 4 * MAX_HELD_BYTES)


@pytest_asyncio.fixture
async def ends() -> AsyncIterator[Ends]:
    ours, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    other.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=AsStream(ours))
    yield Ends(transport, other)
    transport.abort()
    other.close()


class AsStream(socket.socket):
    """A socket that keeps the borders of messages. asyncio would refuse it under its own type."""

    def __init__(self, inner: socket.socket) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM, 0, inner.detach())
        self.setblocking(False)


async def test_what_is_written_in_one_turn_leaves_at_once(ends: Ends) -> None:
    for piece in (b"head", b"body", b""):
        ends.corked.write(piece)
    assert await ends.receive() == b"headbody"
    ends.corked.write(b"next")
    assert await ends.receive() == b"next"


async def test_more_than_is_worth_holding_leaves_in_the_same_turn(ends: Ends) -> None:
    ends.corked.write(bytes(MAX_HELD_BYTES + 1))
    ends.corked.write(b"rest")
    assert len(await ends.receive()) == MAX_HELD_BYTES + 1
    assert await ends.receive() == b"rest"


@pytest.mark.parametrize("end", ["close", "write_eof"])
async def test_what_is_held_leaves_before_the_end(ends: Ends, end: str) -> None:
    ends.corked.write(b"last words")
    getattr(ends.corked, end)()
    assert await ends.receive() == b"last words"
    assert await ends.receive() == b""
