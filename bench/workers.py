"""One worker beside two, in turns: rate, latency, CPU time and memory.

    PYTHONPATH=. .venv/bin/python bench/workers.py [--rounds 7] [--seconds 3] [--json FILE]

The client is h2load (Debian's package nghttp2-client): 16 connections with one request each, then
one connection alone for the latency. It sends digits of 28×28 pixels over both wires, and asks for
a description of the model, which costs what a gateway costs without an image. Both gateways run all
the time, and the ratio of each pair of rounds counts. Client and gateways share the cores, so the
CPU times are printed too, and how many cores the goal would need. Linux alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import struct
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from bench.overload import gateway
from bench.pictures import digit
from bench.ratios import median
from convoy.v1 import classifier_pb2 as pb
from server.cpus import available_cpus

ROOT = Path(__file__).resolve().parents[1]
MODEL = "lenet5"
WORKERS = (1, 2)
CONNECTIONS = 16
GOAL = 1.8
UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
FINISHED = re.compile(r"finished in .*, ([\d.]+) req/s")
SUCCEEDED = re.compile(r"(\d+) succeeded, 0 failed, 0 errored")
MEAN = re.compile(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)")


@dataclass(frozen=True)
class Case:
    """What the client sends; `options` are h2load's."""

    name: str
    path: str
    options: list[str]
    is_grpc: bool = False


@dataclass(frozen=True)
class Served:
    """A gateway that runs."""

    workers: int
    http: str
    grpc: str
    pid: int

    def processes(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]

    def cpu_s(self) -> float:
        ticks = 0
        for pid in self.processes():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        """What several processes share counts once."""
        rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.processes()]
        return sum(int(re.findall(r"^Pss:\s+(\d+)", text, re.M)[0]) for text in rollups) / 1024


@dataclass(frozen=True)
class Load:
    """What h2load measured, and what it cost."""

    per_s: float
    mean_ms: float
    gateway_ms: float  # CPU time per request
    client_ms: float


def create_cases(folder: Path) -> list[Case]:
    description = Case("no image, HTTP", f"/v1/models/{MODEL}", ["--h1"])
    return [description, *classification_cases(folder, MODEL, digit())]


def classification_cases(folder: Path, model: str, image: bytes) -> list[Case]:
    """The same image over both wires; what is sent is written into the folder."""
    message = pb.ClassifyRequest(model=model, image=pb.Image(content=image)).SerializeToString()
    body, call = folder / "body", folder / "call"
    body.write_bytes(image)
    call.write_bytes(struct.pack(">BI", 0, len(message)) + message)
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    return [
        Case("image, HTTP", f"/v1/models/{model}:classify", ["--h1", f"--data={body}"]),
        Case(
            "image, gRPC",
            "/convoy.v1.ImageClassifier/Classify",
            [f"--data={call}", *headers],
            is_grpc=True,
        ),
    ]


def client_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(served: Served, case: Case, connections: int, seconds: float) -> Load:
    base = f"http://{served.grpc}" if case.is_grpc else served.http
    command = ["h2load", f"--clients={connections}", f"--duration={seconds * 1e3:.0f}ms"]
    before_s, client_before_s = served.cpu_s(), client_cpu_s()
    text = subprocess.run(
        [*command, *case.options, base + case.path], capture_output=True, text=True, check=True
    ).stdout
    finished, succeeded, mean = (found.search(text) for found in (FINISHED, SUCCEEDED, MEAN))
    if not (finished and succeeded and mean):
        raise SystemExit(f"some requests failed:\n{text}")
    ms = 1e3 / int(succeeded[1])
    return Load(
        float(finished[1]),
        float(mean[1]) * UNITS_MS[mean[2]],
        (served.cpu_s() - before_s) * ms,
        (client_cpu_s() - client_before_s) * ms,
    )


def check_errors(served: Served) -> None:
    """gRPC errors have HTTP status 200. h2load cancels what is in flight when its time is up."""
    for traffic in httpx.get(f"{served.http}/v1/status").json()["traffic"]:
        if errors := traffic["errors"].keys() - {"CANCELLED"}:
            raise SystemExit(f"some requests failed: {errors}")


def compare(case: Case, gateways: list[Served], rounds: int, seconds: float) -> dict[str, Any]:
    """Measures one case in turns, and prints what came of it."""
    pairs: list[list[Load]] = []
    single: list[list[Load]] = []
    for number in range(rounds + 1):
        pair = [measure(served, case, CONNECTIONS, seconds) for served in gateways]
        alone = [measure(served, case, 1, seconds / 3) for served in gateways]
        if number:  # the first round warms up
            pairs.append(pair)
            single.append(alone)
    print(f"\n{case.name}")
    for n, served in enumerate(gateways):
        loads, alone = [pair[n] for pair in pairs], [pair[n] for pair in single]
        print(
            f"  workers: {served.workers}, {middle(loads, 'per_s'):.0f}/s; "
            f"CPU per request {middle(loads, 'gateway_ms'):.2f} ms, of the client "
            f"{middle(loads, 'client_ms'):.2f} ms; alone {middle(alone, 'mean_ms'):.2f} ms"
        )
    print(f"  ratio: {median([two.per_s / one.per_s for one, two in pairs])}")
    print(f"  the goal of {GOAL} times needs {cores_for_goal(pairs):.1f} CPUs")
    rows = [[asdict(load) for load in pair] for pair in pairs]
    return {"case": case.name, "rounds": rows, "alone": [list(map(asdict, it)) for it in single]}


def middle(loads: list[Load], name: str) -> float:
    return median([getattr(load, name) for load in loads]).value


def cores_for_goal(pairs: list[list[Load]]) -> float:
    """Those that the client uses too included."""
    ones, twos = ([pair[n] for pair in pairs] for n in (0, 1))
    cpu_ms = middle(twos, "gateway_ms") + middle(twos, "client_ms")
    return GOAL * middle(ones, "per_s") * cpu_ms / 1e3


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Pairs of rounds.")] = 7,
    seconds: Annotated[float, typer.Option(min=0.5, help="Of one measurement.")] = 3.0,
    json_path: Annotated[Path | None, typer.Option("--json", help="Keep all figures here.")] = None,
) -> None:
    """Compare a gateway of one worker with one of two."""
    if not shutil.which("h2load"):
        raise SystemExit("h2load is missing: install Debian's package nghttp2-client")
    if json_path:
        json_path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        gateways = []
        for workers in WORKERS:
            options = [f"--repository={ROOT / 'model_repository'}", f"--models={MODEL}"]
            options += [f"--workers={workers}", "--log-level=warning"]
            grpc, http, pid = running.enter_context(gateway(options, folder / f"{workers}.log"))
            gateways.append(Served(workers, http, grpc, pid))
        print(f"{available_cpus()} CPUs, {CONNECTIONS} connections, {rounds} rounds")
        results = [compare(case, gateways, rounds, seconds) for case in create_cases(folder)]
        for served in gateways:
            check_errors(served)
            print(f"\nmemory, workers: {served.workers}: {served.memory_mb():.0f} MB", end="")
        print()
    if json_path:
        json_path.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    typer.run(main)
