"""Questions of a worker to its supervisor."""

from __future__ import annotations

import asyncio
from pathlib import Path

from server.workers.sockets import SupervisorSocket


async def test_all_who_ask_while_an_answer_is_under_way_share_the_next(tmp_path: Path) -> None:
    asked, first_is_there, may_answer = 0, asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        asked += 1
        first_is_there.set()
        number = asked
        await may_answer.wait()
        writer.write(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\n%d" % number
        )
        writer.close()

    async with await asyncio.start_unix_server(answer, tmp_path / "supervisor"):
        supervisor = SupervisorSocket(f"unix:{tmp_path}/supervisor")
        first = asyncio.create_task(supervisor.ask("/status"))
        await first_is_there.wait()
        others = [asyncio.create_task(supervisor.ask("/status")) for _ in range(20)]
        await asyncio.sleep(0)  # all of them wait now
        may_answer.set()
        assert await asyncio.gather(first, *others) == [1] + [2] * 20


async def test_without_a_supervisor_there_is_no_answer(tmp_path: Path) -> None:
    assert await SupervisorSocket(f"unix:{tmp_path}/supervisor").ask("/status") is None
