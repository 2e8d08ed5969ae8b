"""Looks at a repository, at the moment that a test wants one."""

from __future__ import annotations

import asyncio

from server.versions.manager import VersionManager
from server.versions.pool import Pool


def manager_of(pool: Pool) -> VersionManager:
    (manager,) = pool.managers.values()
    return manager


async def poll(pool: Pool) -> None:
    """One look, and all that follows from it."""
    await manager_of(pool).poll()
    for model in list(manager_of(pool)._models.values()):
        if model.update:
            await model.update


async def poll_past_grace(pool: Pool, grace_s: float) -> None:
    await poll(pool)
    await asyncio.sleep(grace_s)
    await poll(pool)
