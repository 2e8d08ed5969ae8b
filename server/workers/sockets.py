"""Questions of supervisor and workers to each other: HTTP on sockets that only they can reach."""

from __future__ import annotations

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
