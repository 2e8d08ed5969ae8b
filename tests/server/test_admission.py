from __future__ import annotations

import asyncio

import pytest

from server.admission import Admission
from server.errors import Overloaded, ShuttingDown


async def test_more_than_the_maximum_is_refused_with_a_delay() -> None:
    admission = Admission(max_in_flight=2)
    with admission.request(), admission.request():
        with pytest.raises(Overloaded) as refusal, admission.request():
            pass
        assert refusal.value.retry_after_s is not None and refusal.value.retry_after_s > 0
    with admission.request():
        assert admission.in_flight == 1


async def test_a_failed_request_gives_its_place_back() -> None:
    admission = Admission(max_in_flight=1)
    with pytest.raises(ZeroDivisionError), admission.request():
        raise ZeroDivisionError
    assert admission.in_flight == 0


async def test_draining_takes_nothing_new_and_waits_for_what_is_there() -> None:
    admission = Admission(max_in_flight=2)
    with admission.request():
        admission.drain()
        with pytest.raises(ShuttingDown), admission.request():
            pass
        waiting = asyncio.create_task(admission.drained())
        await asyncio.sleep(0.01)
        assert not waiting.done()
    await asyncio.wait_for(waiting, 1)
