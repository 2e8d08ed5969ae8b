"""What is kept of a version is forgotten with it, however many versions come and go."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
from collections import Counter, deque
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.gateway import Gateway
from server.settings import Settings
from tests.loopback import until

SWITCHES = 200
WARM_UP = 10  # until each kind of thing has been there once
Kept = Counter[str]


def count_kept() -> Kept:
    """Objects of the server's classes, and entries of their containers, in this process."""
    gc.collect()
    kept: Kept = Counter()
    for thing in gc.get_objects():
        kind = type(thing)
        if not str(kind.__module__).startswith(("server.", "prometheus_client.")):
            continue
        kept[kind.__qualname__] += 1
        for name, value in getattr(thing, "__dict__", {}).items():
            if isinstance(value, (dict, list, set, deque)):
                kept[f"{kind.__qualname__}.{name}"] += len(value)
    return kept


async def test_nothing_is_left_of_versions_that_are_gone(
    repository: Path, digit: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.versions.manager.POLL_INTERVAL_S", 0.005)
    addresses: dict[str, Any] = {
        f"{api}_address": f"unix:{repository}/../{api}" for api in ("http", "grpc", "metrics")
    }
    gateway = Gateway(
        Settings(repository=repository, unload_grace_s=0.001, decode_threads=1, **addresses)
    )
    pool, running = gateway._pool, asyncio.create_task(gateway.run())
    transport = httpx.AsyncHTTPTransport(uds=addresses["http_address"].removeprefix("unix:"))

    async def ask(path: str, **body: Any) -> dict[str, Any]:
        answer = await client.post(path, **body)
        assert answer.is_success, answer.text
        parsed: dict[str, Any] = answer.json()
        return parsed

    async def switch(number: int) -> None:
        """Version `number` comes, answers on both protocols, and the one below goes."""
        shutil.copytree(
            repository / f"lenet5.v{number - 1}",
            repository / f"lenet5.v{number}.staging",
            copy_function=os.link,
        )
        (repository / f"lenet5.v{number}.staging").rename(repository / f"lenet5.v{number}")
        await until(lambda: pool.default("lenet5") == number)
        shutil.rmtree(repository / f"lenet5.v{number - 1}")
        answer = await ask("/v1/models/lenet5:classify", content=digit)
        assert answer["version"] == str(number)
        headers = {"inference-header-content-length": "0"}
        await ask("/v2/models/lenet5/infer", content=digit, headers=headers)
        await until(lambda: [model.version for model in pool.list()] == [str(number)])

    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        await until(lambda: pool.default("lenet5") == 1)
        for number in range(2, WARM_UP):
            await switch(number)
        before = count_kept()
        for number in range(WARM_UP, WARM_UP + SWITCHES):
            await switch(number)
        after = count_kept()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert before["Pool._defaults"] == 1, "the things are counted"
    grown = {
        name: n - before[name] for name, n in after.items() if n >= before[name] + SWITCHES / 4
    }
    assert grown == {}
