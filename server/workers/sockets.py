"""Questions of supervisor and workers to each other: HTTP on sockets that only they can reach."""

from __future__ import annotations

from typing import Any

import httpx

ANSWER_TIMEOUT_S = 5.0


async def ask(
    address: str, path: str, *, accept: str = "", timeout_s: float = ANSWER_TIMEOUT_S
) -> httpx.Response | None:
    """
    Args:
        address: unix:PATH.
    """
    transport = httpx.AsyncHTTPTransport(uds=address.removeprefix("unix:"), verify=False)
    try:
        async with httpx.AsyncClient(transport=transport, timeout=timeout_s) as client:
            return await client.get(f"http://localhost{path}", headers={"accept": accept})
    except httpx.HTTPError:
        return None


async def ask_for_json(address: str, path: str) -> Any:
    """None: there is no answer."""
    response = await ask(address, path)
    return response.json() if response and response.is_success else None
