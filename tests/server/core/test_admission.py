from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack

import pytest

from server.core.admission import BUSY_IMAGES, Admission, Work
from server.errors import DeadlineExceeded, ImageDecodeFailed, Overloaded, ShuttingDown

ONE = {Work("lenet5"): 1}
Tick = Callable[[float], None]


@pytest.fixture
def tick(monkeypatch: pytest.MonkeyPatch) -> Tick:
    """Moves the clock that waits are measured with."""
    now_s = [100.0]
    monkeypatch.setattr("server.core.clock.time.monotonic", lambda: now_s[0])

    def advance(seconds: float) -> None:
        now_s[0] += seconds

    return advance


@pytest.fixture
def admission() -> Admission:
    return Admission(max_in_flight=20, max_in_flight_bytes=1000)


class Queue:
    """Requests for LeNet-5 that are in flight, answered in their order."""

    def __init__(self, admission: Admission, tick: Tick) -> None:
        self._admission = admission
        self._tick = tick
        self._waiting: list[ExitStack] = []

    def join(self, timeout_s: float | None = None, *, count: int = 1) -> None:
        for _ in range(count):
            place = ExitStack()
            place.enter_context(self._admission.request(ONE, timeout_s))
            self._waiting.append(place)

    def answer(self, count: int, *, each_s: float) -> None:
        """One after the other, each followed by a new request."""
        for _ in range(count):
            self._tick(each_s)
            self._waiting.pop(0).close()
            self.join()

    def answer_together(self, count: int, *, each_s: float) -> None:
        """As one batch, whose images all come back at its end; as many new requests follow."""
        self._tick(count * each_s)
        for place in self._waiting[:count]:
            place.close()
        del self._waiting[:count]
        self.join(count=count)

    def fail(self, error: type[BaseException]) -> None:
        """The last that came, which leaves before its turn."""
        place = self._waiting.pop()
        with pytest.raises(error), place:
            raise error("")

    def leave(self, count: int) -> None:
        for _ in range(count):
            self._waiting.pop(0).close()


@pytest.fixture
def queue(admission: Admission, tick: Tick) -> Queue:
    """Ten requests, after many of them have been answered, each 0.1 s after the one before it."""
    queue = Queue(admission, tick)
    queue.join(count=10)
    queue.answer(100, each_s=0.1)
    return queue


def foreseen_s(admission: Admission, images: Mapping[Work, int] = ONE) -> float:
    """What a request would be told that has no time at all."""
    with pytest.raises(Overloaded) as refusal, admission.request(images, 0.0):
        pass
    assert refusal.value.retry_after_s is not None
    return refusal.value.retry_after_s


# ---------------------------------------------------------------- bounds


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
    with admission.request({Work("lenet5"): 2, Work("resnet152"): 1}):
        assert admission.in_flight == 3
        with pytest.raises(Overloaded), admission.request({Work("lenet5"): 2}):
            pass
        assert admission.in_flight == 3
    assert admission.in_flight == 0


async def test_more_bytes_than_the_maximum_are_refused_while_they_arrive(
    admission: Admission,
) -> None:
    first, second = admission.reserve(1000), admission.reserve(1000)
    first.add(600)
    second.add(400)
    with pytest.raises(Overloaded, match="1000 bytes"):
        second.add(1)
    first.release()
    second.release()
    assert admission.in_flight_bytes == 0


async def test_a_failed_request_gives_its_place_back() -> None:
    admission = Admission(max_in_flight=1, max_in_flight_bytes=1000)
    with pytest.raises(ZeroDivisionError), admission.request(ONE):
        raise ZeroDivisionError
    assert admission.in_flight == 0


def test_the_delay_is_how_long_what_is_in_flight_will_take(
    admission: Admission, queue: Queue
) -> None:
    for _ in range(4):
        queue.fail(ImageDecodeFailed)
    with pytest.raises(Overloaded) as refusal, admission.request({Work("lenet5"): 15}):
        pass
    assert refusal.value.retry_after_s == pytest.approx(6 * 0.1, rel=0.05)


# ---------------------------------------------------------------- deadlines


def test_a_deadline_that_cannot_be_met_is_refused_at_the_door(
    admission: Admission, queue: Queue
) -> None:
    with pytest.raises(Overloaded, match=r"1\.1\d\d s.* 0\.800 s") as refusal:
        queue.join(0.8)
    assert refusal.value.retry_after_s == pytest.approx(11 * 0.1 - 0.8, abs=0.05)
    queue.join(1.2)
    assert admission.in_flight == 11


def test_a_batch_is_refused_for_its_last_image(admission: Admission, queue: Queue) -> None:
    assert foreseen_s(admission, {Work("lenet5"): 5}) == pytest.approx(15 * 0.1, rel=0.05)


def test_without_a_deadline_the_bound_on_images_is_all(admission: Admission, queue: Queue) -> None:
    queue.join(count=10)
    assert admission.in_flight == 20


def test_what_rides_together_is_no_faster_for_it(admission: Admission, queue: Queue) -> None:
    """Answers in bursts: the many without a pause before them do not hide the one with it."""
    for _ in range(30):
        queue.answer_together(8, each_s=0.1)
    assert 11 * 0.1 < foreseen_s(admission) < 2.5 * 11 * 0.1


def test_answers_that_vary_leave_less_room(admission: Admission, queue: Queue) -> None:
    for _ in range(50):
        queue.answer(10, each_s=0.05)
        queue.answer(10, each_s=0.15)
    assert foreseen_s(admission) > 1.3 * 11 * 0.1


def test_a_gateway_that_becomes_slower_is_found_out(admission: Admission, queue: Queue) -> None:
    queue.answer(60, each_s=0.3)
    assert foreseen_s(admission) > 0.9 * 11 * 0.3


def test_a_gateway_that_becomes_faster_is_found_out(admission: Admission, queue: Queue) -> None:
    queue.answer(100, each_s=0.02)
    assert foreseen_s(admission) < 1.5 * 11 * 0.02


def test_what_came_too_late_is_no_sign_of_speed(
    admission: Admission, queue: Queue, tick: Tick
) -> None:
    before_s = foreseen_s(admission)
    queue.join(1.2)
    tick(1.2)
    queue.fail(DeadlineExceeded)
    assert foreseen_s(admission) > 1.3 * before_s


def test_a_client_who_goes_away_teaches_at_most_what_it_used(
    admission: Admission, queue: Queue, tick: Tick
) -> None:
    before_s = foreseen_s(admission)
    for _ in range(100):
        queue.join()
        tick(2.2)  # at place 11: 0.2 s for each, and 0.1 s was measured
        queue.fail(asyncio.CancelledError)
    assert before_s < foreseen_s(admission) < 2.05 * before_s


def test_what_an_image_costs_before_the_network_is_its_client_s(
    admission: Admission, queue: Queue, tick: Tick
) -> None:
    """As pictures that take 15 s to decode, of clients who wait and of those who go away."""
    before_s = foreseen_s(admission)
    for error in (None, asyncio.CancelledError) * 5:
        with contextlib.suppress(asyncio.CancelledError), admission.request(ONE, own_s=lambda: 15):
            tick(15 + 11 * 0.1)
            if error:
                raise error
    assert foreseen_s(admission) == pytest.approx(before_s)


def test_large_images_do_not_make_small_ones_slow(
    admission: Admission, queue: Queue, tick: Tick
) -> None:
    before_s = foreseen_s(admission)
    large = {Work.of("lenet5", 4 << 20): 1}
    for _ in range(50):
        with admission.request(large):
            tick(11)
    assert foreseen_s(admission, large) > 5 * before_s
    assert foreseen_s(admission) == pytest.approx(before_s)


def test_a_size_that_was_not_measured_is_like_the_quickest(
    admission: Admission, queue: Queue
) -> None:
    unknown = {Work.of("lenet5", 1 << 20): 1}
    assert foreseen_s(admission, unknown) == pytest.approx(foreseen_s(admission))


def test_a_pause_of_the_process_is_not_taken_for_slowness(
    admission: Admission, queue: Queue, tick: Tick
) -> None:
    admission.clock.tick()
    queue.join(count=10)
    before_s = foreseen_s(admission)
    tick(6.0)
    queue.leave(10)  # before the next tick, and after it
    admission.clock.tick()
    queue.leave(9)
    queue.join(count=19)
    assert foreseen_s(admission) < 2 * before_s


def test_who_goes_away_at_once_changes_nothing(admission: Admission, queue: Queue) -> None:
    before_s = foreseen_s(admission)
    for _ in range(50):
        queue.join()
        queue.fail(asyncio.CancelledError)
    assert foreseen_s(admission) == before_s


def test_broken_images_are_no_sign_of_speed(admission: Admission, queue: Queue) -> None:
    """They are found out in decoding, and wait for no network."""
    before_s = foreseen_s(admission)
    for _ in range(50):
        queue.join()
        queue.fail(ImageDecodeFailed)
    assert foreseen_s(admission) == before_s


def test_one_slow_model_does_not_close_the_door_to_another(
    admission: Admission, queue: Queue
) -> None:
    with admission.request({Work("resnet152"): 1}, 0.1):
        assert admission.in_flight == 11


# ---------------------------------------------------------------- several clients


@pytest.mark.parametrize("timeout_s", [None, 1.0])
def test_a_greedy_client_leaves_room_for_a_modest_one(tick: Tick, timeout_s: float | None) -> None:
    """In each 0.1 s one image is answered; the greedy one sends ten more, the modest one of four
    has one.
    """
    admission = Admission(max_in_flight=20, max_in_flight_bytes=1000)
    waiting: list[ExitStack] = []
    refused: Counter[str] = Counter()

    def send(client: str) -> None:
        place = ExitStack()
        try:
            place.enter_context(admission.request(ONE, timeout_s, client=client))
            waiting.append(place)
        except Overloaded:
            refused[client] += 1

    for turn in range(400):
        for _ in range(10):
            send("greedy")
        if turn % 4 == 0:
            send("modest")
        tick(0.1)
        waiting.pop(0).close()
    assert refused["modest"] <= 10  # of 100
    assert refused["greedy"] > 3000


def test_three_clients_fill_a_quarter_each(admission: Admission) -> None:
    with ExitStack() as held:
        for _ in range(20):
            for client in ("a", "b", "c"):
                with contextlib.suppress(Overloaded):
                    held.enter_context(admission.request(ONE, client=client))
        assert 15 <= admission.in_flight < 20
        with admission.request(ONE, client="d"):
            pass


def test_a_batch_may_fill_a_gateway_that_is_idle(admission: Admission) -> None:
    with admission.request({Work("lenet5"): 20}, client="a"):
        assert admission.in_flight == 20


# ---------------------------------------------------------------- little to do


def test_leisure_is_not_taken_for_slowness(admission: Admission, tick: Tick) -> None:
    """Alone, a request waits for nobody, and shows nothing of how many could be answered."""
    for _ in range(50):
        with admission.request(ONE):
            tick(1.0)
    with ExitStack() as held:
        for _ in range(10):
            held.enter_context(admission.request(ONE, 0.01))


def test_a_short_deadline_is_not_refused_where_nothing_is_in_flight(
    admission: Admission, queue: Queue
) -> None:
    queue.leave(10)
    with admission.request(ONE, 0.01):
        assert admission.in_flight == 1


def test_a_short_queue_is_measured_by_what_a_long_one_has_shown(
    admission: Admission, queue: Queue
) -> None:
    queue.leave(10)
    with admission.request(ONE), pytest.raises(Overloaded), admission.request(ONE, 0.15):
        pass


def test_what_was_slow_once_does_not_keep_the_door_closed(
    admission: Admission, queue: Queue, tick: Tick
) -> None:
    """Nobody with a deadline gets past it to show otherwise but those who find nothing there."""
    queue.leave(10)
    for _ in range(100):
        with admission.request(ONE, 0.1):
            tick(0.001)
    with ExitStack() as held:
        for _ in range(BUSY_IMAGES):
            held.enter_context(admission.request(ONE, 0.1))


# ---------------------------------------------------------------- the end


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
