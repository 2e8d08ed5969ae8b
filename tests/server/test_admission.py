from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from server import admission as module
from server.admission import Admission
from server.errors import Overloaded, ShuttingDown

ONE = {"lenet5": 1}


@pytest.fixture
def tick(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock that rates are measured with."""
    now_s = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now_s[0])

    def advance(seconds: float) -> None:
        now_s[0] += seconds

    return advance


@contextmanager
def measured(tick: Callable[[float], None], *, seconds_each: float) -> Iterator[Admission]:
    """One that has seen five answers of LeNet-5, and holds four images that wait."""
    admission = Admission(max_in_flight=20, max_in_flight_bytes=1000)
    with ExitStack() as waiting:
        for _ in range(4):
            waiting.enter_context(admission.request(ONE))
        for _ in range(5):
            with admission.request(ONE):
                tick(seconds_each)
        yield admission


async def test_more_than_the_maximum_is_refused_with_a_delay() -> None:
    admission = Admission(max_in_flight=2, max_in_flight_bytes=1000)
    with admission.request(ONE), admission.request(ONE):
        with pytest.raises(Overloaded) as refusal, admission.request(ONE):
            pass
        assert refusal.value.retry_after_s is not None and refusal.value.retry_after_s > 0
    with admission.request(ONE):
        assert admission.in_flight == 1


async def test_a_batch_takes_a_place_for_each_image_or_none() -> None:
    admission = Admission(max_in_flight=4, max_in_flight_bytes=1000)
    with admission.request({"lenet5": 2, "resnet152": 1}):
        assert admission.in_flight == 3
        with pytest.raises(Overloaded), admission.request({"lenet5": 2}):
            pass
        assert admission.in_flight == 3


async def test_more_bytes_than_the_maximum_are_refused_while_they_arrive() -> None:
    admission = Admission(max_in_flight=9, max_in_flight_bytes=1000)
    with admission.body() as first, admission.body() as second:
        first.add(600)
        second.add(400)
        with pytest.raises(Overloaded, match="1000 bytes"):
            second.add(1)
    assert admission.in_flight_bytes == 0


async def test_a_failed_request_gives_its_place_back() -> None:
    admission = Admission(max_in_flight=1, max_in_flight_bytes=1000)
    with pytest.raises(ZeroDivisionError), admission.request(ONE), admission.body() as body:
        body.add(10)
        raise ZeroDivisionError
    assert (admission.in_flight, admission.in_flight_bytes) == (0, 0)


def test_a_deadline_that_cannot_be_met_is_refused_at_the_door(
    tick: Callable[[float], None],
) -> None:
    with measured(
        tick, seconds_each=0.5
    ) as admission:  # four wait: a fifth is answered after 2.5 s
        with pytest.raises(Overloaded, match=r"2\.500 s") as refusal, admission.request(ONE, 2.0):
            pass
        assert refusal.value.retry_after_s == pytest.approx(0.5)
        with admission.request(ONE, 3.0):
            pass


def test_one_slow_model_does_not_close_the_door_to_another(tick: Callable[[float], None]) -> None:
    other = {"resnet152": 1}
    with measured(tick, seconds_each=0.5) as admission, admission.request(other, 0.1):
        assert admission.in_flight == 5


def test_the_delay_is_how_long_what_waits_will_take(tick: Callable[[float], None]) -> None:
    with measured(tick, seconds_each=0.25) as admission:
        with pytest.raises(Overloaded) as refusal, admission.request({"lenet5": 17}):
            pass
        assert refusal.value.retry_after_s == pytest.approx(4 * 0.25)


def test_an_idle_gateway_does_not_take_its_leisure_for_slowness(
    tick: Callable[[float], None],
) -> None:
    admission = Admission(max_in_flight=9, max_in_flight_bytes=1000)
    for _ in range(5):
        with admission.request(ONE):
            tick(1.0)
    with admission.request(ONE, 0.01):
        pass


def test_a_short_deadline_is_not_refused_where_nothing_waits(tick: Callable[[float], None]) -> None:
    with measured(tick, seconds_each=0.5) as admission:
        pass
    with admission.request(ONE, 0.01):
        assert admission.in_flight == 1


async def test_draining_takes_nothing_new_and_waits_for_what_is_there() -> None:
    admission = Admission(max_in_flight=2, max_in_flight_bytes=1000)
    with admission.request(ONE):
        admission.drain()
        with pytest.raises(ShuttingDown), admission.request(ONE):
            pass
        waiting = asyncio.create_task(admission.drained())
        await asyncio.sleep(0.01)
        assert not waiting.done()
    await asyncio.wait_for(waiting, 1)
