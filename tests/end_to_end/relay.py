"""A TCP relay to a server that a test can slow down, block or cut."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any


class Relay:
    """Relays from a port of its own, in a thread; changes apply to open connections too."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self.delay_s = 0.0  # for each chunk, in either direction
        self.is_silent = False  # reads everything and forwards nothing, like a cut cable
        self.passed_bytes = 0  # towards the server
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._connections: set[asyncio.Task[None]] = set()
        self._listen(0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def refuse(self) -> None:
        """Closes the port and resets the open connections."""
        self._run(self._close())

    def accept(self) -> None:
        self._listen(int(self.address.rpartition(":")[2]))

    def cut(self) -> None:
        """Resets the open connections; the port stays open."""
        self._run(self._cut())

    def close(self) -> None:
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def _listen(self, port: int) -> None:
        self._server = self._run(asyncio.start_server(self._connect, "127.0.0.1", port))

    async def _close(self) -> None:
        self._server.close()
        await self._cut()

    async def _cut(self) -> None:
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        writers = [writer]
        try:
            to_read, to_write = await asyncio.open_connection(self._host, self._port)
            writers.append(to_write)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forward(reader, to_write, counted=True))
                both.create_task(self._forward(to_read, writer))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            for side in writers:
                side.transport.abort()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counted: bool = False
    ) -> None:
        while chunk := await reader.read(1 << 16):
            await asyncio.sleep(self.delay_s)
            if not self.is_silent:
                writer.write(chunk)
                await writer.drain()
                self.passed_bytes += len(chunk) * counted
        raise ConnectionResetError  # one side has disconnected: disconnect the other


@contextmanager
def relay_to(target: str) -> Iterator[Relay]:
    relay = Relay(target)
    try:
        yield relay
    finally:
        relay.close()
