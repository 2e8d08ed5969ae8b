"""Many requests, one in five of them invalid: the gateway leaks nothing."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from convoy import Client
from tests.conftest import RunningGateway, need_runner
from tests.end_to_end.load import ask, nothing_leaks, resident_bytes
from tests.loopback import wait_for

Serve = Callable[..., RunningGateway]

CLIENTS_PER_WIRE = 3
MAX_GROWTH_BYTES = 5 << 20


class Crowd:
    """Clients that send a number of requests over both wires, and count the outcomes."""

    def __init__(self, gateway: RunningGateway, image: bytes, requests: int) -> None:
        self.seen: Counter[str] = Counter()
        self._image = image
        self._left = iter(range(requests))
        self._threads = [
            threading.Thread(target=self._ask, args=(server,))
            for server in [gateway.grpc, gateway.http] * CLIENTS_PER_WIRE
        ]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()

    def _ask(self, server: str) -> None:
        bad = {5: self._image[: len(self._image) // 2], 10: b"no picture"}
        with Client(server) as client, Client(server, timeout_s=0.001) as hurried:
            for number in self._left:
                who = hurried if number % 20 == 15 else client
                # A new model name each time.
                model = uuid.uuid4().hex if number % 20 == 19 else "lenet5"
                self.seen[ask(who, bad.get(number % 20, self._image), model)] += 1


@pytest.mark.parametrize(
    ("runner", "requests"),
    [
        ("in-process", 1_000),
        pytest.param("in-process", 20_000, marks=pytest.mark.slow),
        pytest.param("triton-local", 20_000, marks=pytest.mark.slow),
    ],
)
def test_many_requests_leave_nothing_behind(
    serve: Serve,
    shipped_lenet5: Path,
    runner: str,
    small_digit: bytes,
    requests: int,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    """Measures memory after the first quarter, which fills pools and caches, and at the end."""
    need_runner(request, runner)
    gateway = serve(
        f"--repository={shipped_lenet5.parent}", "--models=lenet5", f"--runner={runner}"
    )
    gateway.wait_until_ready()
    with Crowd(gateway, small_digit, 100):
        pass
    pid = gateway.process.pid
    with nothing_leaks(gateway):
        with Crowd(gateway, small_digit, requests) as crowd:
            wait_for(lambda: crowd.seen.total() >= requests // 4, 600)
            early_bytes = resident_bytes(pid)
        grown_bytes = resident_bytes(pid) - early_bytes
    good = {"7", "IMAGE_DECODE_FAILED", "MODEL_NOT_FOUND", "IMAGE_FORMAT_UNSUPPORTED"}
    assert set(crowd.seen) <= good | {"DEADLINE_EXCEEDED", "OVERLOADED"}
    assert all(crowd.seen[what] >= requests // 20 for what in good)
    assert crowd.seen["7"] >= requests * 4 // 5
    record_property("endurance", (requests, runner, early_bytes, grown_bytes))
    assert grown_bytes < MAX_GROWTH_BYTES
