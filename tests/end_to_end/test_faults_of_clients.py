"""Clients that disconnect early: the gateway cancels their requests, on either wire."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable

import httpx
import pytest

from convoy import Client
from tests.conftest import RunningGateway
from tests.end_to_end.load import ask, load, nothing_leaks
from tests.end_to_end.relay import Relay, relay_to
from tests.loopback import wait_for

Note = Callable[..., None]

pytestmark = pytest.mark.xdist_group("large-gateway")

LARGE_BYTES = 4 << 20
CLIENTS, WAITING = 48, 12


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_uploads_that_end_in_the_middle_hold_nothing(
    lenet_gateway: RunningGateway, small_digit: bytes, note: Note, wire: str
) -> None:
    with load(lenet_gateway, small_digit):
        pass
    with nothing_leaks(lenet_gateway), load(lenet_gateway, small_digit) as running:
        began_s = time.monotonic()
        for _ in range(3):
            cut_uploads(lenet_gateway, wire)
        wait_for(lambda: running.is_served(began_s))
    assert running.seen() == set()
    wait_for(lambda: in_flight(lenet_gateway) == (0, 0))
    note(f"clients go away while they send, {wire}", "in-process", running, began_s)


def cut_uploads(gateway: RunningGateway, wire: str) -> None:
    """Three at once over a slow relay, which is cut before any of them can have passed."""
    with relay_to(getattr(gateway, wire).removeprefix("http://")) as relay:
        relay.delay_s = 0.02
        threads, outcomes = ask_through(relay, wire, bytes(LARGE_BYTES), "lenet5", 3)
        wait_for(lambda: relay.passed_bytes > LARGE_BYTES // 2)
        relay.cut()
        for thread in threads:
            thread.join()
    assert outcomes == ["Unavailable"] * 3


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_answers_that_nobody_awaits_any_more_are_given_up(
    gateway: RunningGateway, photos: dict[str, bytes], small_digit: bytes, note: Note, wire: str
) -> None:
    with load(gateway, small_digit):
        pass
    with (
        nothing_leaks(gateway),
        load(gateway, small_digit) as running,
        relay_to(getattr(gateway, wire).removeprefix("http://")) as relay,
    ):
        photo = photos["flower.jpg"]
        threads, outcomes = ask_through(relay, wire, photo, "resnet18", CLIENTS)
        # Counted in bytes, of which the digits of the load have hardly any.
        wait_for(lambda: in_flight(gateway)[1] >= WAITING * len(photo))
        gone_s = time.monotonic()
        relay.cut()
        for thread in threads:
            thread.join()
        wait_for(lambda: running.is_served(gone_s))
    # On busy cores some are answered before the last has asked, or before the relay is cut.
    assert len(outcomes) == CLIENTS and "Unavailable" in outcomes
    assert running.seen() == set()
    wait_for(lambda: in_flight(gateway) == (0, 0))
    note(f"clients go away while they wait, {wire}", read_runner(gateway), running, gone_s)


def ask_through(
    relay: Relay, wire: str, image: bytes, model: str, count: int
) -> tuple[list[threading.Thread], list[str]]:
    outcomes: list[str] = []
    server = relay.address if wire == "grpc" else f"http://{relay.address}"

    def ask_once() -> None:
        with Client(server, timeout_s=60) as client:
            outcomes.append(ask(client, image, model))

    threads = [threading.Thread(target=ask_once) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, outcomes


def in_flight(gateway: RunningGateway) -> tuple[int, int]:
    """Returns the number of images in flight, and the bytes of their requests."""
    metrics = httpx.get(f"{gateway.admin}/metrics").text
    images, n_bytes = re.findall(r"^convoy_in_flight(?:_bytes)? (\S+)$", metrics, re.MULTILINE)
    return int(float(images)), int(float(n_bytes))


def read_runner(gateway: RunningGateway) -> str:
    arguments = str(gateway.process.args)
    return "triton-local" if "--runner=triton-local" in arguments else "in-process"
