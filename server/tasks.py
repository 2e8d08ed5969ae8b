"""What the gateway's parts do with asyncio's tasks and threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

# Parsing or writing more JSON than this would hold up the event loop for more than 2 ms.
LARGE_BYTES = 256 << 10


async def cancel_and_wait(*tasks: asyncio.Future[Any]) -> None:
    """Returns when all have ended. Their errors are nobody's any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def wait_for_first(*tasks: asyncio.Future[Any]) -> None:
    """Returns when one of the tasks ends, and raises its error, if any. The others go on."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        await task


async def run_in_thread_if_large(
    n_bytes: int, function: Callable[..., T], *arguments: Any, limit_bytes: int = LARGE_BYTES
) -> T:
    """Calls the function, in a thread if `n_bytes` is above the limit.

    `n_bytes` is the size of what the function reads or writes, on which its duration depends.
    """
    if n_bytes > limit_bytes:
        return await asyncio.to_thread(function, *arguments)
    return function(*arguments)
