"""Tasks that end together, and work that goes to a thread when it is large."""

from __future__ import annotations

import asyncio
import threading

import pytest

from server.tasks import LARGE_BYTES, cancel_and_wait, run_in_thread_if_large, wait_for_first


async def fail() -> None:
    raise ValueError("broken")


async def test_cancelled_tasks_have_cleaned_up_when_the_wait_returns() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("work")

    task, failed = asyncio.create_task(work()), asyncio.create_task(fail())
    await asyncio.sleep(0)

    await cancel_and_wait(task, failed)

    assert ended == ["work"]
    assert task.cancelled()


async def test_the_error_of_the_first_to_end_is_raised_and_the_others_go_on() -> None:
    endless = asyncio.create_task(asyncio.Event().wait())

    with pytest.raises(ValueError, match="broken"):
        await wait_for_first(endless, asyncio.create_task(fail()))

    assert not endless.done()
    await cancel_and_wait(endless)


async def test_only_large_work_leaves_the_event_loops_thread() -> None:
    event_loop = threading.get_ident()

    assert await run_in_thread_if_large(LARGE_BYTES, threading.get_ident) == event_loop
    assert await run_in_thread_if_large(LARGE_BYTES + 1, threading.get_ident) != event_loop
    assert await run_in_thread_if_large(11, threading.get_ident, limit_bytes=10) != event_loop
