"""A transport that sends the head of an answer together with its body."""

from __future__ import annotations

import asyncio
from typing import Any

# Above this a piece is worth a system call of its own, and the client's pace has to be felt.
MAX_HELD_BYTES = 64 << 10


class CorkedTransport:
    """Sends at once what is written in one turn of the event loop; otherwise asyncio's transport.

    uvicorn writes the head of an answer, its body and its end one after the other. Each would be a
    system call, which wakes the client.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = bytearray()
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._held and data:
            self._loop.call_soon(self.flush)
        self._held += data
        if len(self._held) > MAX_HELD_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._held:
            held, self._held = self._held, bytearray()
            self._transport.write(held)

    def write_eof(self) -> None:
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        self.flush()
        self._transport.close()
