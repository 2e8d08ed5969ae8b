"""The machine runs out of a resource, its clock jumps, or SIGTERM arrives while requests run."""

from __future__ import annotations

import calendar
import json
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from convoy import Client
from tests.conftest import ROOT, RUNNERS, RunningGateway, need_runner, serving
from tests.end_to_end.load import ask, load, nothing_leaks
from tests.loopback import free_port, wait_for

Note = Callable[..., None]
slow = pytest.mark.slow

SPARE_FILES = 12
FLOOD = 60
DAY_S = 86400


@dataclass(frozen=True)
class Machine:
    gateway: RunningGateway
    runner: str


@pytest.fixture(scope="module", params=RUNNERS)
def machine(
    request: pytest.FixtureRequest, shipped_lenet5: Path, small_digit: bytes, tmp_path_factory: Any
) -> Iterator[Machine]:
    """A gateway that has seen load. The last test ends it."""
    need_runner(request, request.param)
    log_path = tmp_path_factory.mktemp(request.param) / "gateway.log"
    options = [*options_for(request.param, shipped_lenet5), "--not-ready-s=0.5"]
    with serving(log_path, *options) as gateway:
        gateway.wait_until_ready()
        with load(gateway, small_digit):
            pass
        yield Machine(gateway, request.param)


def options_for(runner: str, version: Path) -> list[str]:
    return [f"--repository={version.parent}", "--models=lenet5", f"--runner={runner}"]


# ---------------------------------------------------------------- no files left to open


def test_without_file_descriptors_open_connections_are_still_served(
    machine: Machine, small_digit: bytes, note: Note
) -> None:
    """New connections wait until descriptors are free; meanwhile the log is not flooded."""
    gateway = machine.gateway

    def ask_on_new_connection(timeout_s: float) -> str:
        with Client(gateway.http, timeout_s=timeout_s) as client:
            return ask(client, small_digit)

    with nothing_leaks(gateway), load(gateway, small_digit) as running:
        lines, flooded_s = gateway.log().count("\n"), time.monotonic()
        with flood_of_connections(gateway):
            late = ask_on_new_connection(timeout_s=1)
            gateway.wait_for(lambda: running.is_served(flooded_s + 2), 60)
            logged = gateway.log().count("\n") - lines - running.counts(flooded_s).total()
        over_s = time.monotonic()
        wait_for(lambda: ask_on_new_connection(timeout_s=5) == "7")
        back_s = time.monotonic() - over_s
    assert late == "DEADLINE_EXCEEDED"
    assert running.seen() == set()
    assert logged < 50
    note("no file descriptors left: open connections", machine.runner, running, flooded_s)
    note(
        "no file descriptors left: new connections",
        machine.runner,
        running,
        flooded_s,
        seen=late,
        back=f"{back_s:.1f} s",
    )


@contextmanager
def flood_of_connections(gateway: RunningGateway) -> Iterator[None]:
    """Opens more connections to each API than the gateway has file descriptors left."""
    pid = gateway.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir())
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + SPARE_FILES, before[1]))
    try:
        with ExitStack() as connections:
            for address in (gateway.http.removeprefix("http://"), gateway.grpc):
                host, _, port = address.rpartition(":")
                for _ in range(FLOOD):
                    connections.enter_context(socket.create_connection((host, int(port))))
            wait_for(lambda: "out of system resource" in gateway.log())
            yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


# ---------------------------------------------------------------- no room for the log


@pytest.mark.parametrize("runner", ["in-process", pytest.param("triton-local", marks=slow)])
def test_a_full_disk_for_the_log_costs_no_request(
    runner: str,
    shipped_lenet5: Path,
    small_digit: bytes,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    note: Note,
) -> None:
    need_runner(request, runner)
    with logging_to_a_full_disk(options_for(runner, shipped_lenet5), tmp_path) as gateway:
        with load(gateway, small_digit):
            pass
        began_s = time.monotonic()
        with nothing_leaks(gateway), load(gateway, small_digit) as running:
            wait_for(lambda: running.counts()["7"] >= 25)
        assert running.seen() == set()
        assert gateway.stop() == 0
    note("a full disk for the log", runner, running, began_s)


@contextmanager
def logging_to_a_full_disk(options: list[str], tmp_path: Path) -> Iterator[RunningGateway]:
    """Runs a gateway whose standard output and standard error are on a full disk."""
    http, grpc, admin = addresses = [f"127.0.0.1:{free_port()}" for _ in range(3)]
    apis = zip(("http", "grpc", "metrics"), addresses, strict=True)
    flags = [f"--{api}-address={address}" for api, address in apis]
    command = [sys.executable, "-m", "convoy.cli", "serve", *flags, *options]
    nothing = tmp_path / "log"
    nothing.touch()
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(command, cwd=ROOT, stdout=full, stderr=full, text=True)
    with process:
        try:
            gateway = RunningGateway(process, f"http://{http}", grpc, f"http://{admin}", nothing)
            gateway.wait_for(partial(is_ready, gateway))
            yield gateway
        finally:
            process.kill()


def is_ready(gateway: RunningGateway) -> bool:
    return httpx.get(f"{gateway.http}/readyz").is_success


# ---------------------------------------------------------------- a clock that jumps


@dataclass(frozen=True)
class Clock:
    """The wall clock of a gateway, which a file sets: "+1d" is tomorrow.

    libfaketime opens the file at each call, and ends a process that has no descriptor left: so
    these tests use a gateway of their own.
    """

    path: Path
    gateway: RunningGateway

    def set(self, days: int) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(f"{days:+d}d")
        new.replace(self.path)  # atomically: an incomplete time would end the process too
        shown_s = time.time() + days * DAY_S
        wait_for(lambda: abs(last_logged_s(self.gateway) - shown_s) < 60)


JUMPS = (1, -1, 0)  # where the clock stands, in days
CLOCK_CLIENTS = 4  # on each wire


@pytest.mark.parametrize("runner", ["in-process", pytest.param("triton-local", marks=slow)])
def test_a_clock_that_jumps_costs_no_request_but_those_of_that_instant(
    runner: str,
    shipped_lenet5: Path,
    small_digit: bytes,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    note: Note,
) -> None:
    """A day forwards, then two backwards: nothing waits for a day."""
    need_runner(request, runner)
    path = tmp_path / "clock"
    path.write_text("+0")
    options = options_for(runner, shipped_lenet5)
    with serving(tmp_path / "gateway.log", *options, environment=faked_by(path)) as gateway:
        gateway.wait_until_ready()
        with load(gateway, small_digit):
            pass
        clock = Clock(path, gateway)
        with (
            nothing_leaks(gateway),
            load(gateway, small_digit, clients_per_wire=CLOCK_CLIENTS) as running,
        ):
            jumped_s = time.monotonic()
            for days in JUMPS:
                clock.set(days)
                wait_for(partial(running.is_served, time.monotonic()))
    # grpcio tells by the wall clock how much time is left: what arrives then may seem late.
    failed = [each for each in running.outcomes if each.what != running.answer]
    assert {each.what for each in failed} <= {"OVERLOADED", "DEADLINE_EXCEEDED"}
    assert {each.wire for each in failed} <= {"grpc"} and len(failed) <= CLOCK_CLIENTS * len(JUMPS)
    assert running.longest_s() < 10
    note("the clock jumps a day forwards, two backwards", runner, running, jumped_s)


def faked_by(clock: Path) -> dict[str, str]:
    """Returns an environment in which a file sets the wall clock, but not the monotonic clock."""
    spec = find_spec("libfaketime")
    if not spec or not spec.origin:
        pytest.skip("needs libfaketime, whose package is for Linux on x86-64")
    return {
        "LD_PRELOAD": str(Path(spec.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    }


def last_logged_s(gateway: RunningGateway) -> float:
    times = re.findall(r'"time": "([^"]+)\.\d+Z"', gateway.log()[-10_000:])
    return calendar.timegm(time.strptime(times[-1], "%Y-%m-%dT%H:%M:%S"))


# ---------------------------------------------------------------- signals


def test_sigterm_under_load_loses_nothing_that_was_accepted(
    machine: Machine, small_digit: bytes, note: Note
) -> None:
    """Every answer that the gateway logged has arrived; SIGHUPs before it change nothing."""
    gateway, offset = machine.gateway, len(machine.gateway.log())
    with load(gateway, small_digit, clients_per_wire=4) as running:
        for _ in range(3):
            gateway.process.send_signal(signal.SIGHUP)
            time.sleep(0.2)
        assert running.seen() == set()
        assert gateway.stop() == 0
        gone_s = time.monotonic()
        wait_for(lambda: running.counts(gone_s).total() > 10)
    given = outcomes_in(gateway.log()[offset:])
    assert running.seen() <= {"SHUTTING_DOWN", "Unavailable"}
    arrived = running.counts()
    assert given == +Counter(OK=arrived["7"], SHUTTING_DOWN=arrived["SHUTTING_DOWN"])
    note("SIGTERM", machine.runner, running, gone_s, back="never: it ends")


def outcomes_in(log: str) -> Counter[str]:
    """Counts the outcomes in a gateway's log."""
    lines = (json.loads(line) for line in log.splitlines() if line.startswith("{"))
    return Counter(line["outcome"] for line in lines if "outcome" in line)
