"""How messages of gRPC calls are read: how long one may take, how large it is, how many at once.

grpcio has one receive limit for all methods, and learns of the key after a message has begun. So
the messages of methods that need no key pass a gate, which bounds the memory that strangers hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from server.errors import DeadlineExceeded, MalformedRequest, Overloaded

# What needs no key: the probes, and what describes the contract.
OPEN_METHODS = re.compile(
    r"/grpc\.health\.v1\.Health/.*|/grpc\.reflection\.v1(alpha)?\.ServerReflection/.*"
    r"|/inference\.GRPCInferenceService/Server(Live|Ready)"
)
# The longest honest one is a name in reflection.
MAX_OPEN_MESSAGE_BYTES = 4 << 10
OPEN_MESSAGE_TIMEOUT_S = 2.0
# Each may take --max-request-bytes before its size is known here. Calls of one host that are slow
# on purpose leave places for those of others.
GATE_SIZE = 8
GATE_SIZE_PER_HOST = 2
MAX_WAITING = 100

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Read: TypeAlias = Callable[[], Awaitable[bytes | None]]


async def next_message(
    context: Context, timeout_s: float, max_bytes: int | None = None
) -> bytes | None:
    """None: there are no more.

    gRPC's iterator over messages would be a generator for each call, which the event loop has to
    close in a task of its own.

    Raises:
        DeadlineExceeded, MalformedRequest: it does not come in time, or is too long.
    """
    try:
        async with asyncio.timeout(timeout_s):
            message = await context.read()
    except TimeoutError as error:
        raise DeadlineExceeded(f"no whole message came within {timeout_s:g} s") from error
    if message is grpc.aio.EOF:
        return None
    if max_bytes is not None and len(message) > max_bytes:
        del message  # the error would keep it, by its traceback
        raise MalformedRequest(f"a message of this method has at most {max_bytes} bytes")
    return bytes(message)


class Gate:
    """Through it go the messages of open methods, a few at a time, and fewer of one host."""

    def __init__(self) -> None:
        self._inside = Counter[str]()
        self._waiting = 0
        self._left = asyncio.Condition()

    async def next_message(self, context: Context) -> bytes | None:
        """As the function.

        Raises:
            Overloaded: too many others are read, or wait.
            DeadlineExceeded, MalformedRequest: as the function.
        """
        async with self._place(parse_host(context.peer())):
            return await next_message(context, OPEN_MESSAGE_TIMEOUT_S, MAX_OPEN_MESSAGE_BYTES)

    @contextlib.asynccontextmanager
    async def _place(self, host: str) -> AsyncIterator[None]:
        if not self._has_place(host):
            await self._wait(host)
        self._inside[host] += 1
        try:
            yield
        finally:
            self._inside[host] -= 1
            self._inside += Counter()  # forgets hosts that are at zero
            async with self._left:
                self._left.notify_all()

    async def _wait(self, host: str) -> None:
        if self._waiting >= MAX_WAITING:
            raise too_many()
        self._waiting += 1
        try:
            async with asyncio.timeout(OPEN_MESSAGE_TIMEOUT_S), self._left:
                await self._left.wait_for(lambda: self._has_place(host))
        except TimeoutError as error:
            raise too_many() from error
        finally:
            self._waiting -= 1

    def _has_place(self, host: str) -> bool:
        return self._inside.total() < GATE_SIZE and self._inside[host] < GATE_SIZE_PER_HOST


def too_many() -> Overloaded:
    return Overloaded("too many calls without a key", retry_after_s=OPEN_MESSAGE_TIMEOUT_S)


def parse_host(peer: str) -> str:
    """gRPC's name for a client's address, ipv4:127.0.0.1:50000, without the port."""
    return peer if peer.startswith("unix") else peer.rpartition(":")[0]
