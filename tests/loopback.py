"""Servers on this machine: a port for them, and waiting until they are as a test needs them."""

import asyncio
import socket
import time
from collections.abc import Callable

import httpx


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def answers(url: str) -> bool:
    return holds(lambda: httpx.get(url, timeout=5).status_code == 200)


def holds(condition: Callable[[], bool]) -> bool:
    """False also while the server refuses connections or does not answer in time."""
    try:
        return condition()
    except httpx.TransportError:
        return False


def wait_for(condition: Callable[[], bool], timeout_s: float = 120.0) -> float:
    """Returns the seconds that it took."""
    began_s = time.monotonic()
    while not holds(condition):
        assert time.monotonic() < began_s + timeout_s, f"not so after {timeout_s} s"
        time.sleep(0.02)
    return time.monotonic() - began_s


async def until(condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
    """The same on an event loop."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for signals nothing
            await asyncio.sleep(0.005)
