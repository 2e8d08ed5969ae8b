"""Batches in process: gateways that batch in several ways, beside a bare session of ONNX Runtime.

PYTHONPATH=. .venv/bin/python bench/batching.py [--rounds 7] [--seconds 2] [--json FILE]
"""

from __future__ import annotations

import asyncio
import functools
import io
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import grpc
import numpy as np
import onnxruntime as ort
import typer
from PIL import Image

from bench.batching_variants import AS_IT_IS, CPUS, VARIANTS, gateways
from bench.overload import used_cpu_s
from bench.peers.processes import machine_cpu_s
from bench.pictures import photo
from bench.pixels import by_the_gateway, cpu_s
from bench.ratios import Median, median
from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc
from server.runners.version_files import MODEL_FILE

ROOT = Path(__file__).resolve().parents[1]
BATCHES = (1, 2, 4, 8)
WARM_UP_CPU_S = 8.0  # after 5 the gateway opens a graph again, with threads
MIN_IMAGES = 24  # in a turn: three batches


Case = tuple[str, str, int]  # model, picture, requests held open


@dataclass(frozen=True)
class Bare:
    """What a session alone reaches."""

    per_s: float
    cpu_ms: float  # per image


@dataclass(frozen=True)
class Turn:
    """`gateway_ms` and `client_ms` are CPU time per answer; the others are medians."""

    model: str
    picture: str
    concurrency: int
    variant: str
    round: int
    per_s: float
    bare_per_s: float
    bare_cpu_ms: float  # per image
    gateway_ms: float
    client_ms: float
    used: float  # share of the CPUs
    by_others: float  # share of the CPUs that other processes used
    computing: float  # share of the time in which a batch is computed, or of two, their sum
    batch: float
    latency_ms: float
    prepare_ms: float  # on the clock
    queue_ms: float


# ---------------------------------------------------------------- the bare session


@functools.cache
def open_session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = CPUS
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_bare(path: Path, batch: int, seconds: float) -> Bare:
    session = open_session(path)
    shape = (batch, *session.get_inputs()[0].shape[1:])
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    session.run(["probabilities"], {"image": images})
    began_s, cpu_began_s, count = time.perf_counter(), time.process_time(), 0
    while (took_s := time.perf_counter() - began_s) < seconds:
        session.run(["probabilities"], {"image": images})
        count += batch
    return Bare(count / took_s, (time.process_time() - cpu_began_s) / count * 1e3)


def best_batch(process: ProcessPoolExecutor, path: Path, seconds: float) -> int:
    rates = {
        batch: [process.submit(run_bare, path, batch, seconds).result().per_s for _ in range(3)]
        for batch in BATCHES
    }
    print(
        f"{path.parents[1].name} alone, by batch size:",
        *(f"{batch}: {statistics.median(each):.1f}/s" for batch, each in rates.items()),
    )
    return max(BATCHES, key=lambda batch: statistics.median(rates[batch]))


# ---------------------------------------------------------------- gateways


class Served:
    """A gateway that runs, and a connection to it."""

    def __init__(self, address: str, pid: int) -> None:
        self._pid = pid
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.aio.insecure_channel(address, options=options)
        self._classify = classifier_pb2_grpc.ImageClassifierStub(channel).Classify

    def cpu_s(self) -> float:
        return used_cpu_s(self._pid)

    async def warm_up(self, request: pb.ClassifyRequest) -> None:
        end_s = self.cpu_s() + WARM_UP_CPU_S
        while self.cpu_s() < end_s:
            await asyncio.gather(*(self._classify(request) for _ in range(max(BATCHES))))

    async def load(
        self, request: pb.ClassifyRequest, concurrency: int, seconds: float
    ) -> list[tuple[float, float, pb.ClassifyResponse]]:
        """When each answer came, in seconds since the beginning, and how long it took."""
        answers: list[tuple[float, float, pb.ClassifyResponse]] = []
        began_s = time.monotonic()

        async def ask() -> None:
            while (sent_s := time.monotonic() - began_s) < seconds:
                answer = await self._classify(request)
                now_s = time.monotonic() - began_s
                answers.append((now_s, now_s - sent_s, answer))

        await asyncio.gather(*(ask() for _ in range(concurrency)))
        return answers


def build(models: Sequence[str], repository: Path) -> None:
    """Random weights cost the same as trained ones; it takes a minute, once."""
    for model in models:
        if not (repository / f"{model}.v1").is_dir():
            command = [sys.executable, str(ROOT / "export" / "build.py"), model, "--weights=random"]
            subprocess.run([*command, f"--repository={repository}"], check=True)


# ---------------------------------------------------------------- turns


def small() -> bytes:
    content = io.BytesIO()
    Image.open(io.BytesIO(photo())).resize((32, 32)).save(content, "JPEG", quality=90)
    return content.getvalue()


PICTURES: dict[str, Callable[[], bytes]] = {"photo": photo, "small": small}


def request_for(model: str, content: bytes) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(model=model, image=pb.Image(content=content))


async def take_turn(
    served: Served, content: bytes, seconds: float, bare: Bare, facts: dict[str, Any]
) -> Turn:
    """The rate is that between two answers, since those of a batch come together."""
    request = request_for(facts["model"], content)
    settle_s = max(BATCHES) / bare.per_s  # the first batches are small
    end_s = settle_s + max(seconds, MIN_IMAGES / bare.per_s)
    clocks = (time.monotonic, served.cpu_s, time.process_time, machine_cpu_s)
    before = [clock() for clock in clocks]
    answers = await served.load(request, facts["concurrency"], end_s)
    took_s, gateway_s, client_s, all_s = (
        clock() - since for clock, since in zip(clocks, before, strict=True)
    )
    began_s = max((at_s for at_s, *_ in answers if at_s < settle_s), default=0.0)
    counted = [answer for answer in answers if began_s < answer[0] <= end_s]
    ended_s = max(at_s for at_s, *_ in counted)
    timings = [answer.timing for *_, answer in counted]
    computed_s = sum(a.timing.compute_us / a.served.batch_size for *_, a in counted) / 1e6
    return Turn(
        **facts,
        per_s=len(counted) / (ended_s - began_s),
        bare_per_s=bare.per_s,
        bare_cpu_ms=bare.cpu_ms,
        gateway_ms=gateway_s / len(answers) * 1e3,
        client_ms=client_s / len(answers) * 1e3,
        used=all_s / took_s / CPUS,
        by_others=max(0.0, all_s - gateway_s - client_s) / took_s / CPUS,
        computing=computed_s / (ended_s - began_s),
        batch=len(counted) / sum(1 / a.served.batch_size for *_, a in counted),
        latency_ms=statistics.median(latency_s for _, latency_s, _ in counted) * 1e3,
        prepare_ms=statistics.median(t.decode_us + t.preprocess_us for t in timings) / 1e3,
        queue_ms=statistics.median(t.queue_us for t in timings) / 1e3,
    )


async def measure(
    addresses: dict[str, tuple[str, int]],
    cases: list[Case],
    bare: Callable[[str], Bare],  # of a model
    rounds: int,
    seconds: float,
) -> list[Turn]:
    order, turns = random.Random(0), list[Turn]()
    contents = {picture: PICTURES[picture]() for _, picture, _ in cases}
    variants = {variant: Served(*address) for variant, address in addresses.items()}
    for served in variants.values():
        for model in {model for model, *_ in cases}:
            await served.warm_up(request_for(model, next(iter(contents.values()))))
    for number in range(rounds):
        for case in cases:
            alone = bare(case[0])
            for variant in order.sample(list(variants), len(variants)):
                facts = dict(zip(("model", "picture", "concurrency"), case, strict=True))
                facts |= {"variant": variant, "round": number}
                content = contents[case[1]]
                turns.append(await take_turn(variants[variant], content, seconds, alone, facts))
        mean_used = statistics.mean(turn.by_others for turn in turns if turn.round == number)
        print(f"round {number + 1} of {rounds}: others used {mean_used:.0%}", flush=True)
    return turns


# ---------------------------------------------------------------- the report


def select(turns: list[Turn], case: Case, variant: str) -> list[Turn]:
    return [
        turn
        for turn in turns
        if (turn.model, turn.picture, turn.concurrency, turn.variant) == (*case, variant)
    ]


def middle(turns: list[Turn], name: str) -> float:
    return median([getattr(turn, name) for turn in turns]).value


def gain(turns: list[Turn], usual: list[Turn]) -> Median:
    return median([turn.per_s / it.per_s for turn, it in zip(turns, usual, strict=True)])


def print_case(turns: list[Turn], case: Case, variants: Sequence[str]) -> None:
    model, picture, concurrency = case
    print(f"\n{model}, {picture}, {concurrency} at once")
    usual = select(turns, case, AS_IT_IS)
    for variant in variants:
        rows = select(turns, case, variant)
        share = median([turn.per_s / turn.bare_per_s for turn in rows])
        compared = f", of {AS_IT_IS} {gain(rows, usual)}" if usual and rows != usual else ""
        print(
            f"  {variant:28} {middle(rows, 'per_s'):6.1f}/s, of bare {share}{compared}; "
            f"batch {middle(rows, 'batch'):.1f}, computing {middle(rows, 'computing'):.2f}, "
            f"prepared in {middle(rows, 'prepare_ms'):.1f} ms, "
            f"queue {middle(rows, 'queue_ms'):.1f} ms, p50 {middle(rows, 'latency_ms'):.0f} ms"
        )


def print_arithmetic(turns: list[Turn], case: Case, prepare_ms: float) -> None:
    """Where the CPU time of an answer goes."""
    rows = select(turns, case, AS_IT_IS)
    gateway_ms, client_ms, bare_ms = (
        middle(rows, name) for name in ("gateway_ms", "client_ms", "bare_cpu_ms")
    )
    most = CPUS * 1e3 / (gateway_ms + client_ms) / middle(rows, "bare_per_s")
    print(
        f"{case[0]}, {case[1]}, {case[2]} at once: CPU per answer: gateway {gateway_ms:.1f} ms "
        f"(an image of the bare session {bare_ms:.1f}, its preparation {prepare_ms:.1f}), client "
        f"{client_ms:.1f}; if the CPUs never idled {most:.2f} of bare; "
        f"they were used to {middle(rows, 'used'):.2f}, by others {middle(rows, 'by_others'):.2f}"
    )


def split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Of all turns.")] = 7,
    seconds: Annotated[float, typer.Option(min=0.5, help="Of one turn.")] = 2.0,
    models: Annotated[str, typer.Option(help="Networks of the catalog.")] = "resnet18,resnet50",
    pictures: Annotated[str, typer.Option(help=f"Of {', '.join(PICTURES)}.")] = "photo",
    concurrency: Annotated[str, typer.Option(help="Requests held open.")] = "1,4,16,32",
    variants: Annotated[str, typer.Option(help=f"Of {', '.join(VARIANTS)}.")] = ",".join(VARIANTS),
    repository: Annotated[
        Path, typer.Option(help="Where the networks are, or are built with random weights.")
    ] = ROOT / "build" / "batching" / "repository",
    json_path: Annotated[Path | None, typer.Option("--json", help="Keep all turns here.")] = None,
) -> None:
    """Compare the gateway, and other ways to batch in process, with a bare session of ONNX Runtime.

    The session has the same file, as many threads as there are CPUs, pixels that are ready, and its
    best batch size. The gateways answer JPEGs over gRPC: as they are; waiting for more requests
    before a batch starts; with two instances, which a version's config.pbtxt can ask for; with
    threads that decode before those that compute; and with other options of ONNX Runtime.

    In each round all take a turn, in changing order, after one of the session. The ratio of two
    turns of a round counts: the median, with its 95 % interval.

    The last lines say where the time of the CPUs goes, which the client shares, and so which share
    of the session is possible at most. "small" is a picture of 32×32, which is cheap to decode.

    Example, two minutes: --models resnet18 --concurrency 4 --variants 'as it is,two instances'
    """
    build(split(models), repository)
    cases = [
        (model, picture, int(count))
        for model in split(models)
        for picture in split(pictures)
        for count in split(concurrency)
    ]
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        paths = {model: repository / f"{model}.v1" / MODEL_FILE for model in split(models)}
        batches = {model: (path, best_batch(process, path, 1.0)) for model, path in paths.items()}

        def bare(model: str) -> Bare:
            return process.submit(run_bare, *batches[model], seconds).result()

        with gateways(repository, split(models), split(variants)) as addresses:
            turns = asyncio.run(measure(addresses, cases, bare, rounds, seconds))
    for case in cases:
        print_case(turns, case, split(variants))
    print()
    for case in cases if AS_IT_IS in variants else []:
        content = PICTURES[case[1]]()
        prepare_s = statistics.median(cpu_s(by_the_gateway, content) for _ in range(50))
        print_arithmetic(turns, case, prepare_s * 1e3)
    if json_path:
        json_path.write_text(json.dumps([asdict(turn) for turn in turns], indent=1))


if __name__ == "__main__":
    typer.run(main)
