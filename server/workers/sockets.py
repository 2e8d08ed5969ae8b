"""Questions of supervisor and workers to each other: HTTP on sockets that only they can reach."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import httpx

ANSWER_TIMEOUT_S = 5.0


async def ask(address: str, path: str, *, accept: str = "") -> httpx.Response | None:
    """
    Args:
        address: unix:PATH.
    """
    transport = httpx.AsyncHTTPTransport(uds=address.removeprefix("unix:"), verify=False)
    try:
        async with httpx.AsyncClient(transport=transport, timeout=ANSWER_TIMEOUT_S) as client:
            return await client.get(f"http://localhost{path}", headers={"accept": accept})
    except httpx.HTTPError:
        return None


class SupervisorSocket:
    """A worker's questions to its supervisor, each asked once at a time.

    Any client can cause them, and their answers cost more than the questions: all who ask while an
    answer is under way share the next one.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # by path
        self._next: dict[str, asyncio.Task[Any]] = {}

    async def ask(self, path: str) -> Any:
        """Returns what the JSON says; None: there is no answer."""
        if path not in self._next:
            self._next[path] = asyncio.create_task(self._ask_in_turn(path))
        return await asyncio.shield(self._next[path])

    async def _ask_in_turn(self, path: str) -> Any:
        async with self._turns[path]:
            del self._next[path]
            response = await ask(self._address, path)
            return response.json() if response and response.is_success else None
