"""What a gateway does past its capacity: an open loop at 0.5, 1, 2 and 4 times as much.

    PYTHONPATH=. .venv/bin/python bench/overload.py --repository DIR [--model resnet50]
        [--seconds 30] [--deadline-s 1] [--draw docs/overload.svg] [-- OPTIONS OF convoy serve]

Capacity is what a closed loop gets. Then requests are sent as they would come from many clients
who know nothing of each other (Poisson arrivals, seeded), whether or not those before them are
answered, in turns of a third of the seconds; three quarters go over gRPC, one over HTTP. Each has a
deadline. Times count from when a request should have been sent, so that a client that falls behind
hides nothing. Meanwhile somebody asks for the gateway's health on both wires.

Prints a table; draws goodput (answers a second that came within the deadline) and p99.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import itertools
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import httpx
import numpy as np
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from PIL import Image

from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc

LOADS = (0.5, 1.0, 2.0, 4.0)  # times the capacity
ROUNDS = 3  # a machine changes its speed: what is compared is measured in turns
HTTP_EACH = 4  # every fourth request goes over HTTP
CLOSED_LOOP = 16  # requests held open while the capacity is measured
CLOSED_LOOP_REQUESTS = 320
PROBE_EVERY_S = 0.1
SEED = 1


def photo() -> bytes:
    """A photograph of 640×480, as a client sends it."""
    from sklearn.datasets import load_sample_image

    content = io.BytesIO()
    whole = Image.fromarray(load_sample_image("china.jpg"))
    whole.resize((640, 480)).save(content, "JPEG", quality=90)
    return content.getvalue()


# ---------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class Outcome:
    """Of one request, or of one question for the gateway's health."""

    ended_s: float  # since the load began
    took_s: float  # since it should have been sent
    behind_s: float  # how long after that it was
    what: str  # "OK", or the gateway's reason, or what went wrong
    has_delay: bool = False  # the gateway said after how long to ask again


@dataclass
class Load:
    times: float  # the capacity
    seconds: float
    deadline_s: float
    outcomes: list[Outcome] = field(default_factory=list)
    probes: list[Outcome] = field(default_factory=list)

    def add(self, more: Load) -> None:
        """What came of it in another round, as if it had gone on."""
        for each in more.outcomes:
            self.outcomes.append(replace(each, ended_s=each.ended_s + self.seconds))
        self.probes += more.probes
        self.seconds += more.seconds

    @property
    def goodput(self) -> float:
        """Answers within the deadline, a second until the last of them."""
        answers = [each for each in self.of("OK") if each.took_s <= self.deadline_s]
        return len(answers) / max([self.seconds, *(each.ended_s for each in answers)])

    def of(self, what: str) -> list[Outcome]:
        return [each for each in self.outcomes if each.what == what]

    @property
    def late_share(self) -> float:
        """Of those that were let in: not answered within the deadline."""
        taken = [each for each in self.outcomes if each.what != "OVERLOADED"]
        late = [each for each in taken if each.what != "OK" or each.took_s > self.deadline_s]
        return len(late) / max(1, len(taken))

    @property
    def failed_probes(self) -> Counter[str]:
        return Counter(each.what for each in self.probes if each.what != "OK")


def percentile_s(share: float, outcomes: list[Outcome]) -> float:
    if not outcomes:
        return float("nan")
    return float(np.percentile([each.took_s for each in outcomes], 100 * share))


# ---------------------------------------------------------------- clients


@dataclass(frozen=True)
class Wires:
    """Connections of one party."""

    channel: grpc.aio.Channel
    http: httpx.AsyncClient


@contextlib.asynccontextmanager
async def wires_to(grpc_address: str, http_url: str) -> AsyncIterator[Wires]:
    options = [("grpc.use_local_subchannel_pool", 1)]  # or parties would share a connection
    async with (
        grpc.aio.insecure_channel(grpc_address, options=options) as channel,
        httpx.AsyncClient(base_url=http_url, timeout=60.0, trust_env=False) as http,
    ):
        yield Wires(channel, http)


class Clients:
    """Of both wires, for one model and one image."""

    def __init__(self, wires: Wires, probes: Wires, model: str, image: bytes) -> None:
        self._http = wires.http
        self._probe = probes.http
        self._url = f"/v1/models/{model}:classify"
        self._request = pb.ClassifyRequest(model=model, image=pb.Image(content=image))
        self._classify = classifier_pb2_grpc.ImageClassifierStub(wires.channel).Classify  # type: ignore[no-untyped-call]
        self._check = health_pb2_grpc.HealthStub(probes.channel).Check  # type: ignore[attr-defined]

    def over(self, number: int) -> Callable[[float | None], Awaitable[tuple[str, bool]]]:
        """The wire of a request, by its number."""
        return self.over_grpc if number % HTTP_EACH else self.over_http

    async def over_grpc(self, timeout_s: float | None) -> tuple[str, bool]:
        try:
            await self._classify(self._request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return reason_of(error)
        return "OK", False

    async def over_http(self, timeout_s: float | None) -> tuple[str, bool]:
        headers = {"x-request-timeout-ms": f"{timeout_s * 1e3:.3f}"} if timeout_s else {}
        try:
            answer = await self._http.post(
                self._url, content=self._request.image.content, headers=headers
            )
        except httpx.HTTPError as error:
            return repr(error), False
        if answer.status_code == 200:
            return "OK", False
        return answer.json()["reason"], "retry-after" in answer.headers

    async def is_serving(self) -> tuple[str, bool]:
        try:
            answer = await self._check(health_pb2.HealthCheckRequest(), timeout=5.0)
        except grpc.aio.AioRpcError as error:
            return f"gRPC health: {error.code().name}", False
        status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        return "OK" if status == "SERVING" else f"gRPC health: {status}", False

    async def is_well(self, path: str) -> tuple[str, bool]:
        try:
            answer = await self._probe.get(path, timeout=5.0)
        except httpx.HTTPError as error:
            return f"{path}: {error!r}", False
        return "OK" if answer.status_code == 200 else f"{path}: {answer.status_code}", False


def reason_of(error: grpc.aio.AioRpcError) -> tuple[str, bool]:
    """The gateway's reason, and whether it says after how long to ask again."""
    reason, has_delay = error.code().name, False
    if status := rpc_status.from_call(error):  # type: ignore[arg-type]
        for detail in status.details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                reason = info.reason
            has_delay |= detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)
    return reason, has_delay


@contextlib.asynccontextmanager
async def clients_of(
    grpc_address: str, http_url: str, model: str, image: bytes
) -> AsyncIterator[Clients]:
    """Whoever asks for the health has connections of his own."""
    addresses = (grpc_address, http_url)
    async with wires_to(*addresses) as wires, wires_to(*addresses) as probes:
        yield Clients(wires, probes, model, image)


# ---------------------------------------------------------------- loads


async def capacity_of(clients: Clients, requests: int) -> float:
    """Answers a second to so many requests, each of which follows an answer."""
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
    """Requests at times the capacity, for so many seconds, and what became of each."""
    load = Load(times, seconds, deadline_s)
    chance = random.Random(seed)
    began_s = time.monotonic()

    async def ask(number: int, due_s: float) -> None:
        timeout_s = max(0.001, due_s + deadline_s - time.monotonic())
        await note(clients.over(number)(timeout_s), due_s, load.outcomes)

    async def note(
        asking: Awaitable[tuple[str, bool]], due_s: float, outcomes: list[Outcome]
    ) -> None:
        behind_s = time.monotonic() - due_s
        what, has_delay = await asking
        now_s = time.monotonic()
        outcomes.append(Outcome(now_s - began_s, now_s - due_s, behind_s, what, has_delay))

    async def at_times(
        pause_s: Callable[[], float], do: Callable[[int, float], Awaitable[None]]
    ) -> None:
        due_s = began_s
        async with asyncio.TaskGroup() as under_way:
            for number in itertools.count():
                due_s += pause_s()
                if due_s >= began_s + seconds:
                    return
                await asyncio.sleep(due_s - time.monotonic())
                under_way.create_task(do(number, due_s))  # type: ignore[arg-type]

    async def probe(number: int, due_s: float) -> None:
        paths = (clients.is_well("/livez"), clients.is_well("/readyz"))
        asking = (clients.is_serving(), *paths)
        await asyncio.gather(*(note(each, due_s, load.probes) for each in asking))

    await asyncio.gather(
        at_times(lambda: chance.expovariate(times * capacity), ask),
        at_times(lambda: PROBE_EVERY_S, probe),
    )
    return load


async def measure(
    clients: Clients, *, seconds: float, deadline_s: float
) -> tuple[float, list[Load]]:
    capacity = await capacity_of(clients, CLOSED_LOOP_REQUESTS)
    print(f"capacity: {capacity:.1f} answers/s, {CLOSED_LOOP} in flight", flush=True)
    whole = [Load(times, 0.0, deadline_s) for times in LOADS]
    limits = {"capacity": capacity, "seconds": seconds / ROUNDS, "deadline_s": deadline_s}
    for number in range(ROUNDS):
        for load in whole:
            load.add(await open_loop(clients, load.times, seed=SEED + number, **limits))
    return capacity, whole


# ---------------------------------------------------------------- what is left


def table(loads: list[Load]) -> str:
    """In Markdown; times in milliseconds."""
    columns = "load|sent/s|goodput/s|refused|late, of those let in|p50|p99|refusal, p99|health, p99"
    rows = [columns.split("|"), ["---:"] * len(columns.split("|"))]
    for load in loads:
        refused = load.of("OVERLOADED")
        rows.append(
            [
                f"{load.times:g}",
                f"{len(load.outcomes) / load.seconds:.1f}",
                f"{load.goodput:.1f}",
                f"{len(refused) / len(load.outcomes):.0%}",
                f"{load.late_share:.1%}",
                *(f"{percentile_s(share, load.of('OK')) * 1e3:.0f}" for share in (0.5, 0.99)),
                f"{percentile_s(0.99, refused) * 1e3:.0f}" if refused else "",
                f"{percentile_s(0.99, load.probes) * 1e3:.0f}",
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


PLOT_WIDTH, PLOT_HEIGHT = 300, 200  # of one panel's axes, in the drawing's units
LEFT, TOP, GAP = 50, 40, 70
STEPS = [digit * 10**power for power in range(6) for digit in (1, 2, 3, 5, 6)]  # between two ticks
BLUE, ORANGE = "#0072b2", "#d55e00"  # told apart by colour-blind eyes


def draw(capacity: float, loads: list[Load]) -> str:
    """An SVG: goodput left, p99 right, over the load."""
    width, height = LEFT + 2 * PLOT_WIDTH + GAP + 20, TOP + PLOT_HEIGHT + 50
    goodput = _panel(
        "goodput: answers/s within the deadline",
        [load.goodput for load in loads],
        (capacity, f"capacity, {capacity:.1f}/s"),
        BLUE,
    )
    p99 = _panel(
        "p99 of the answers, in ms",
        [percentile_s(0.99, load.of("OK")) * 1e3 for load in loads],
        (loads[0].deadline_s * 1e3, "deadline"),
        ORANGE,
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12" fill="#222">\n'
        '<rect width="100%" height="100%" fill="white"/>\n'
        f'<g transform="translate({LEFT} {TOP})">\n{goodput}</g>\n'
        f'<g transform="translate({LEFT + PLOT_WIDTH + GAP} {TOP})">\n{p99}</g>\n</svg>\n'
    )


def _panel(title: str, values: list[float], mark: tuple[float, str], colour: str) -> str:
    """Axes from 0, a level with its name, and a point a load; (0, 0) is the upper left corner."""
    highest = 1.1 * max(*values, mark[0])
    step = next(step for step in STEPS if 5 * step >= highest)
    top = 5 * step
    lines = [f'<text y="-14" font-size="14">{title}</text>']
    for number in range(6):
        y = round(PLOT_HEIGHT * (1 - number / 5), 1)
        lines.append(f'<path d="M0 {y}H{PLOT_WIDTH}" stroke="#ddd"/>')
        lines.append(f'<text x="-6" y="{y + 4}" text-anchor="end">{number * step}</text>')
    level = round(PLOT_HEIGHT * (1 - mark[0] / top), 1)
    lines.append(f'<path d="M0 {level}H{PLOT_WIDTH}" stroke="#888" stroke-dasharray="6 3"/>')
    lines.append(f'<text x="4" y="{level - 5}">{mark[1]}</text>')
    xs = [round(PLOT_WIDTH * (number + 0.5) / len(LOADS), 1) for number in range(len(LOADS))]
    points = [
        (x, round(PLOT_HEIGHT * (1 - value / top), 1)) for x, value in zip(xs, values, strict=True)
    ]
    digits = 1 if top < 100 else 0
    path = " ".join(f"{x},{y}" for x, y in points)
    lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    for (x, y), value, times in zip(points, values, LOADS, strict=True):
        lines.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>')
        lines.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{value:.{digits}f}</text>')
        below = f'y="{PLOT_HEIGHT + 18}" text-anchor="middle"'
        lines.append(f'<text x="{x}" {below}>{times:g}</text>')
    middle = f'x="{PLOT_WIDTH / 2}" y="{PLOT_HEIGHT + 36}" text-anchor="middle"'
    lines.append(f"<text {middle}>load, times the capacity</text>")
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- the gateway


@contextlib.contextmanager
def gateway(options: list[str], log_path: Path) -> Iterator[tuple[str, str]]:
    """HOST:PORT of gRPC and http://HOST:PORT of a gateway that is ready."""
    ports = [f"--{door}-address=127.0.0.1:0" for door in ("http", "grpc", "metrics")]
    command = [sys.executable, "-m", "convoy.cli", "serve", *ports, *options]
    with log_path.open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout
        greeting = "".join(itertools.takewhile(lambda line: "/metrics" not in line, process.stdout))
        found = [re.search(rf"{door} +(\S+)", greeting) for door in ("gRPC", "HTTP")]
        address, http = (match[1] for match in found if match)
        while httpx.get(f"{http}/readyz").status_code != 200:
            if process.poll() is not None:
                raise SystemExit(f"the gateway ended:\n{log_path.read_text()[-2000:]}")
            time.sleep(0.1)
        yield address, http
    finally:
        process.terminate()
        process.wait(60)


async def run(arguments: argparse.Namespace, addresses: tuple[str, str]) -> None:
    async with clients_of(*addresses, arguments.model, photo()) as clients:
        capacity, loads = await measure(
            clients, seconds=arguments.seconds, deadline_s=arguments.deadline_s
        )
    print(table(loads))
    for load in loads:
        print(f"at {load.times:g}: {dict(Counter(each.what for each in load.outcomes))}", end=", ")
        print(f"{len(load.probes)} probes, failed: {dict(load.failed_probes)}", end=", ")
        behind_s = float(np.percentile([each.behind_s for each in load.outcomes], 99))
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
    parser.add_argument("--draw", type=Path, help="the file for the picture")
    parser.add_argument("options", nargs="*", help="of convoy serve")
    arguments = parser.parse_args()
    options = [f"--repository={arguments.repository}", f"--models={arguments.model}"]
    with tempfile.TemporaryDirectory() as folder:
        log_path = Path(folder) / "gateway.log"
        with gateway([*options, *arguments.options], log_path) as addresses:
            asyncio.run(run(arguments, addresses))


if __name__ == "__main__":
    main()
