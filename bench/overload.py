"""Measures a gateway beyond its capacity: an open loop at 0.5, 1, 2 and 4 times as much.

    PYTHONPATH=. .venv/bin/python bench/overload.py --repository DIR [--model resnet50]
        [--picture FILE] [--seconds 30] [--deadline-s 1] [--draw docs/overload.svg]
        [-- OPTIONS OF convoy serve]

Capacity is the rate of a closed loop. Then requests are sent as by many independent clients
(Poisson arrivals, seeded), whether or not earlier ones were answered, in turns of a third of the
seconds; three quarters go over gRPC, one over HTTP. Each has a deadline. Times count from when a
request should have been sent, so that a slow client hides nothing. Meanwhile a probe checks the
gateway's health over both wires.

Prints a table; draws goodput (answers per second within the deadline) and p99. Beyond capacity a
gateway also refuses: with x, the CPU time of a refusal over that of an answer, k times the capacity
leaves (1 - kx) / (1 - x) of it for answers. That matters for small networks, and is printed, too.
The clients share the machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import itertools
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from bench.charts import BLUE, ORANGE, render_chart, render_panel
from bench.clients import Clients, connect_clients
from bench.pictures import photo

LOADS = (0.5, 1.0, 2.0, 4.0)  # times the capacity
ROUNDS = 3  # a machine's speed changes, so the loads are measured in turns
CLOSED_LOOP = 16  # requests held open while the capacity is measured
CLOSED_LOOP_REQUESTS = 320
PROBE_EVERY_S = 0.1
SEED = 1


# ---------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class RequestOutcome:
    """The outcome of one request or one probe."""

    ended_s: float  # since the load began
    took_s: float  # since it should have been sent
    behind_s: float  # how late it was sent
    what: str  # "OK", or the gateway's reason, or what went wrong
    has_delay: bool = False  # the gateway said when to retry


@dataclass
class Load:
    times: float  # the capacity
    seconds: float
    deadline_s: float
    cpu_s: float = 0.0  # of the gateway
    outcomes: list[RequestOutcome] = field(default_factory=list)
    probes: list[RequestOutcome] = field(default_factory=list)

    def add(self, more: Load) -> None:
        """Appends the outcomes of another round."""
        for outcome in more.outcomes:
            self.outcomes.append(replace(outcome, ended_s=outcome.ended_s + self.seconds))
        self.probes += more.probes
        self.cpu_s += more.cpu_s
        self.seconds += more.seconds

    @property
    def goodput(self) -> float:
        """Answers within the deadline per second, until the last of them."""
        answers = [answer for answer in self.select("OK") if answer.took_s <= self.deadline_s]
        return len(answers) / max([self.seconds, *(answer.ended_s for answer in answers)])

    def select(self, what: str) -> list[RequestOutcome]:
        return [outcome for outcome in self.outcomes if outcome.what == what]

    @property
    def late_share(self) -> float:
        """The share of admitted requests that were not answered within the deadline."""
        admitted = [outcome for outcome in self.outcomes if outcome.what != "OVERLOADED"]
        answered = [answer for answer in self.select("OK") if answer.took_s <= self.deadline_s]
        return (len(admitted) - len(answered)) / max(1, len(admitted))

    @property
    def failed_probes(self) -> Counter[str]:
        return Counter(probe.what for probe in self.probes if probe.what != "OK")


def percentile_s(share: float, outcomes: list[RequestOutcome]) -> float:
    if not outcomes:
        return float("nan")
    return float(np.percentile([outcome.took_s for outcome in outcomes], 100 * share))


# ---------------------------------------------------------------- loads


async def measure_capacity(clients: Clients, requests: int) -> float:
    """Returns the answers per second of a closed loop."""
    await closed_loop(clients, CLOSED_LOOP)  # warm up
    began_s = time.monotonic()
    await closed_loop(clients, requests)
    return requests / (time.monotonic() - began_s)


async def closed_loop(clients: Clients, requests: int) -> None:
    numbers = iter(range(requests))

    async def ask() -> None:
        for number in numbers:
            what, _ = await clients.over(number)(None)
            if what != "OK":
                raise SystemExit(f"the gateway answered {what} while its capacity was measured")

    await asyncio.gather(*(ask() for _ in range(CLOSED_LOOP)))


async def open_loop(
    clients: Clients,
    times: float,
    *,
    capacity: float,
    seconds: float,
    deadline_s: float,
    seed: int = SEED,
) -> Load:
    """Sends requests at a multiple of the capacity; returns their outcomes."""
    load = Load(times, seconds, deadline_s)
    chance = random.Random(seed)
    began_s = time.monotonic()

    async def ask(number: int, due_s: float) -> None:
        timeout_s = max(0.001, due_s + deadline_s - time.monotonic())
        await note(clients.over(number)(timeout_s), due_s, load.outcomes)

    async def note(
        asking: Awaitable[tuple[str, bool]], due_s: float, outcomes: list[RequestOutcome]
    ) -> None:
        behind_s = time.monotonic() - due_s
        what, has_delay = await asking
        now_s = time.monotonic()
        outcomes.append(RequestOutcome(now_s - began_s, now_s - due_s, behind_s, what, has_delay))

    async def at_times(
        pause_s: Callable[[], float], do: Callable[[int, float], Coroutine[Any, Any, None]]
    ) -> None:
        due_s = began_s
        async with asyncio.TaskGroup() as under_way:
            for number in itertools.count():
                due_s += pause_s()
                if due_s >= began_s + seconds:
                    return
                await asyncio.sleep(due_s - time.monotonic())
                under_way.create_task(do(number, due_s))

    async def probe(number: int, due_s: float) -> None:
        paths = (clients.is_well("/livez"), clients.is_well("/readyz"))
        asking = (clients.is_serving(), *paths)
        await asyncio.gather(*(note(question, due_s, load.probes) for question in asking))

    await asyncio.gather(
        at_times(lambda: chance.expovariate(times * capacity), ask),
        at_times(lambda: PROBE_EVERY_S, probe),
    )
    return load


async def measure(
    clients: Clients, *, seconds: float, deadline_s: float, cpu_s: Callable[[], float] = float
) -> tuple[float, list[Load]]:
    """`cpu_s` gives the CPU time that the gateway has used."""
    capacity = await measure_capacity(clients, CLOSED_LOOP_REQUESTS)
    print(f"capacity: {capacity:.1f} answers/s, {CLOSED_LOOP} in flight", flush=True)
    whole = [Load(times, 0.0, deadline_s) for times in LOADS]
    limits = {"capacity": capacity, "seconds": seconds / ROUNDS, "deadline_s": deadline_s}
    for number in range(ROUNDS):
        for load in whole:
            before_s = cpu_s()
            more = await open_loop(clients, load.times, seed=SEED + number, **limits)
            more.cpu_s = cpu_s() - before_s
            load.add(more)
    return capacity, whole


# ---------------------------------------------------------------- the report


def table(loads: list[Load]) -> str:
    """Renders Markdown; times are in milliseconds."""
    columns = "load|sent/s|goodput/s|refused|late, of those let in|p50|p99|refusal, p99|health, p99"
    rows = [columns.split("|"), ["---:"] * len(columns.split("|"))]
    for load in loads:
        refused = load.select("OVERLOADED")
        rows.append(
            [
                f"{load.times:g}",
                f"{len(load.outcomes) / load.seconds:.1f}",
                f"{load.goodput:.1f}",
                f"{len(refused) / len(load.outcomes):.0%}",
                f"{load.late_share:.1%}",
                *(f"{percentile_s(share, load.select('OK')) * 1e3:.0f}" for share in (0.5, 0.99)),
                f"{percentile_s(0.99, refused) * 1e3:.0f}" if refused else "",
                f"{percentile_s(0.99, load.probes) * 1e3:.0f}",
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def describe_goodput(loads: list[Load]) -> str:
    """How much is left at the highest load, and how much the cost of refusals would leave."""
    easy, hard = loads[0], loads[-1]
    best = max(loads, key=lambda load: load.goodput)
    share = hard.goodput / best.goodput
    answer_s = easy.cpu_s / max(1, len(easy.select("OK")))
    answered = len(hard.select("OK"))
    rest_s = max(0.0, hard.cpu_s - answer_s * answered)
    refusal_s = rest_s / max(1, len(hard.outcomes) - answered)
    cost = refusal_s / answer_s
    left = max(0.0, 1 - hard.times * cost) / (1 - cost)
    return (
        f"at {hard.times:g} times the capacity {share:.2f} of the best goodput; an answer takes "
        f"{answer_s * 1e3:.2f} ms of CPU, a refusal {refusal_s * 1e3:.2f} ms, x = {cost:.2f}; "
        f"0.9 of what that leaves: {0.9 * left:.2f}"
    )


def draw(capacity: float, loads: list[Load]) -> str:
    """Renders an SVG: goodput left, p99 right, over the load."""
    times = [load.times for load in loads]
    goodput = render_panel(
        "goodput: answers/s within the deadline",
        times,
        [load.goodput for load in loads],
        (capacity, f"capacity, {capacity:.1f}/s"),
        BLUE,
    )
    p99 = render_panel(
        "p99 of the answers, in ms",
        times,
        [percentile_s(0.99, load.select("OK")) * 1e3 for load in loads],
        (loads[0].deadline_s * 1e3, "deadline"),
        ORANGE,
    )
    return render_chart(goodput, p99)


# ---------------------------------------------------------------- the gateway


@contextlib.contextmanager
def gateway(
    options: list[str],
    log_path: Path,
    checkout: Path | None = None,
    program: Sequence[str] = ("-m", "convoy.cli"),
) -> Iterator[tuple[str, str, int]]:
    """Yields HOST:PORT of gRPC, http://HOST:PORT and the process's id, when it is ready.

    It is the gateway of this checkout, or of another one that has a .venv of its own.
    """
    python = str(checkout / ".venv" / "bin" / "python") if checkout else sys.executable
    ports = [f"--{api}-address=127.0.0.1:0" for api in ("http", "grpc", "metrics")]
    command = [python, *program, "serve", *ports, *options]
    with log_path.open("w") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=checkout
        )
    try:
        assert process.stdout
        banner = "".join(itertools.takewhile(lambda line: "/metrics" not in line, process.stdout))
        matches = [re.search(rf"{api} +(\S+)", banner) for api in ("gRPC", "HTTP")]
        address, http = (match[1] for match in matches if match)
        while httpx.get(f"{http}/readyz").status_code != 200:
            if process.poll() is not None:
                raise SystemExit(f"the gateway ended:\n{log_path.read_text()[-2000:]}")
            time.sleep(0.1)
        yield address, http, process.pid
    finally:
        process.terminate()
        process.wait(60)


def used_cpu_s(pid: int) -> float:
    facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(facts[11]) + int(facts[12])) / os.sysconf("SC_CLK_TCK")


async def run(arguments: argparse.Namespace, addresses: tuple[str, str], pid: int) -> None:
    image = arguments.picture.read_bytes() if arguments.picture else photo()
    async with connect_clients(*addresses, arguments.model, image) as clients:
        capacity, loads = await measure(
            clients,
            seconds=arguments.seconds,
            deadline_s=arguments.deadline_s,
            cpu_s=functools.partial(used_cpu_s, pid),
        )
    print(table(loads))
    print(describe_goodput(loads))
    for load in loads:
        print(
            f"at {load.times:g}: {dict(Counter(outcome.what for outcome in load.outcomes))}",
            end=", ",
        )
        print(f"{len(load.probes)} probes, failed: {dict(load.failed_probes)}", end=", ")
        behind_s = float(np.percentile([outcome.behind_s for outcome in load.outcomes], 99))
        print(f"sent {behind_s * 1e3:.0f} ms late at p99")
    if arguments.draw:
        arguments.draw.write_text(draw(capacity, loads), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each load, in three turns")
    parser.add_argument("--deadline-s", type=float, default=1.0)
    parser.add_argument("--picture", type=Path, help="such as tests/data/digit-7.png; else a photo")
    parser.add_argument("--draw", type=Path, help="the file for the picture")
    parser.add_argument("options", nargs="*", help="of convoy serve")
    arguments = parser.parse_args()
    options = [f"--repository={arguments.repository}", f"--models={arguments.model}"]
    with tempfile.TemporaryDirectory() as folder:
        log_path = Path(folder) / "gateway.log"
        with gateway([*options, *arguments.options], log_path) as (address, http, pid):
            asyncio.run(run(arguments, (address, http), pid))


if __name__ == "__main__":
    main()
