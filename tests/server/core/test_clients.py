"""Clients who would hurt others: on the wire, neighbours are answered and places given back."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import signal
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.preprocessing.zoo import png

CLASSIFY = "/v1/models/lenet5:classify"
GRACE_S = 1.0
MARGIN_S = 2.0  # for what else the machine does


def headers_of(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}-secret"}


@pytest.fixture
def guarded(serve: Callable[..., Any], shipped_lenet5: Path, tmp_path: Path) -> Any:
    """With two keys, and room for eight images."""
    digests = {
        name: hashlib.sha256(f"{name}-secret".encode()).hexdigest() for name in ("greedy", "modest")
    }
    keys_path = tmp_path / "keys.toml"
    keys_path.write_text("".join(f'[{name}]\nsha256 = "{it}"\n' for name, it in digests.items()))
    gateway = serve(
        f"--repository={shipped_lenet5.parent}",
        "--models=lenet5",
        f"--api-keys={keys_path}",
        "--max-in-flight=8",
        "--decode-threads=2",
        f"--shutdown-grace-s={GRACE_S}",
        "--not-ready-s=0",
    )
    gateway.wait_until_ready()
    return gateway


@functools.cache
def dearest() -> bytes:
    """A picture of 50 million pixels in few bytes, which takes a second or two."""
    row = b"\4" + bytes(7000 * 4)
    stream = zlib.compressobj(1)
    return png((7000, 7000), 8, 6, b"".join(map(stream.compress, [row] * 7000)) + stream.flush())


@contextlib.asynccontextmanager
async def client_of(gateway: Any, name: str) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=100)
    async with httpx.AsyncClient(
        base_url=gateway.http, headers=headers_of(name), timeout=60, limits=limits
    ) as client:
        yield client


async def outcome_of(client: httpx.AsyncClient, content: bytes, **headers: str) -> str:
    answer = await client.post(CLASSIFY, content=content, headers=headers)
    return "OK" if answer.is_success else str(answer.json()["reason"])


async def test_a_greedy_key_leaves_nine_tenths_to_a_modest_one(guarded: Any, digit: bytes) -> None:
    seen: dict[str, Counter[str]] = {"greedy": Counter(), "modest": Counter()}
    async with client_of(guarded, "greedy") as greedy, client_of(guarded, "modest") as modest:

        async def send(name: str, client: httpx.AsyncClient) -> None:
            seen[name][await outcome_of(client, digit, **{"x-request-timeout-ms": "5000"})] += 1

        async def flood() -> None:
            while True:
                await send("greedy", greedy)

        flooding = [asyncio.create_task(flood()) for _ in range(32)]
        for _ in range(60):
            await send("modest", modest)
        for task in flooding:
            task.cancel()
        await asyncio.gather(*flooding, return_exceptions=True)
    assert seen["modest"]["OK"] >= 54
    assert seen["greedy"]["OVERLOADED"] > 0


async def test_dear_pictures_of_one_who_leaves_cost_a_neighbour_no_request(
    guarded: Any, digit: bytes
) -> None:
    async with client_of(guarded, "greedy") as greedy, client_of(guarded, "modest") as modest:
        outcomes: Counter[str] = Counter()
        for _ in range(2):
            dear = [asyncio.create_task(outcome_of(greedy, dearest())) for _ in range(3)]
            for _ in range(20):
                outcome = await outcome_of(modest, digit, **{"x-request-timeout-ms": "5000"})
                outcomes[outcome] += 1
            for task in dear:
                task.cancel()
            await asyncio.gather(*dear, return_exceptions=True)
    assert outcomes == {"OK": 40}


# ---------------------------------------------------------------- what is given up


async def timed(client: httpx.AsyncClient, content: bytes, **headers: str) -> tuple[str, float]:
    began_s = time.monotonic()
    return await outcome_of(client, content, **headers), time.monotonic() - began_s


@pytest.mark.parametrize("by", ["departure", "deadline"])
async def test_what_nobody_waits_for_makes_room_within_the_time_of_one_picture(
    guarded: Any, by: str
) -> None:
    async with client_of(guarded, "greedy") as greedy, client_of(guarded, "modest") as modest:
        outcome, one_s = await timed(modest, dearest())
        assert outcome == "IMAGE_UNSUITABLE"
        headers = {"x-request-timeout-ms": "300"} if by == "deadline" else {}
        dear = [asyncio.create_task(outcome_of(greedy, dearest(), **headers)) for _ in range(7)]
        await asyncio.sleep(0.3)
        for task in dear if by == "departure" else []:
            task.cancel()
        ends = await asyncio.gather(*dear, return_exceptions=True)
        outcome, took_s = await timed(modest, dearest())
        _, one_later_s = await timed(modest, dearest())
    assert outcome == "IMAGE_UNSUITABLE"
    assert by == "departure" or ends.count("DEADLINE_EXCEEDED") > 2, "too few waited"
    # The one that had begun, its own, and none of the six that waited.
    assert took_s < 2 * max(one_s, one_later_s) + 1 + MARGIN_S


async def test_a_stop_waits_for_no_more_than_one_picture(guarded: Any) -> None:
    async with client_of(guarded, "greedy") as greedy:
        _, one_s = await timed(greedy, dearest())
        dear = [asyncio.create_task(outcome_of(greedy, dearest())) for _ in range(4)]
        await asyncio.sleep(0.3)
        began_s = time.monotonic()
        guarded.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(guarded.process.wait, 60) == 0
        assert time.monotonic() - began_s < GRACE_S + one_s + 1 + MARGIN_S
        ends = await asyncio.gather(*dear, return_exceptions=True)
    assert ends.count("SHUTTING_DOWN") >= 2, "what waits for its turn is told to try elsewhere"


async def test_a_gateway_that_was_stopped_for_a_while_answers_again(
    guarded: Any, digit: bytes
) -> None:
    """Its clients' deadlines have passed meanwhile; that is no sign of how slow it is."""
    async with client_of(guarded, "greedy") as greedy, client_of(guarded, "modest") as modest:
        timeout = {"x-request-timeout-ms": "1000"}

        async def flood() -> None:
            while True:
                await outcome_of(greedy, digit, **timeout)

        flooding = [asyncio.create_task(flood()) for _ in range(8)]
        await asyncio.sleep(1)
        guarded.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(6)
        guarded.process.send_signal(signal.SIGCONT)
        await asyncio.sleep(2)
        outcomes = Counter([await outcome_of(modest, digit, **timeout) for _ in range(20)])
        for task in flooding:
            task.cancel()
        await asyncio.gather(*flooding, return_exceptions=True)
    assert outcomes["OK"] >= 18
