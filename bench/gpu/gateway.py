"""The whole gateway over gRPC on this machine: JPEG in, labels out, in a closed loop.

    PYTHONPATH=. python bench/gpu/gateway.py --repository DIR --model resnet50
        [--in-flight 1,16,64,192] [--gateways 1,2,4] [--seconds 6] [-- OPTIONS OF convoy serve]

For each number of gateways (processes that share the GPU), and of requests held open by each: how
many answers a second, how long they took, which stage took how long, how many images were
in a batch, and how busy the processors were, with the gateway's event loop (its main thread) apart.
Clients are processes of this machine, too, and take some of its cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from bench.pictures import photo
from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc as pb_grpc
from server.preprocessing import prepare
from server.preprocessing.decode import decode

CLIENTS = 4  # processes
WARM_UP_S = 3.0
START_TIMEOUT_S = 120.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


# ---------------------------------------------------------------- gateways


@dataclass(frozen=True)
class GatewayProcess:
    process: subprocess.Popen[str]
    address: str  # HOST:PORT of gRPC
    log_path: Path


@contextlib.contextmanager
def gateways(count: int, options: list[str], folder: Path) -> Iterator[list[GatewayProcess]]:
    with contextlib.ExitStack() as running:
        yield [
            running.enter_context(gateway(options, folder / f"gateway-{number}.log"))
            for number in range(count)
        ]


@contextlib.contextmanager
def gateway(options: list[str], log_path: Path) -> Iterator[GatewayProcess]:
    ports = [f"--{api}-address=127.0.0.1:0" for api in ("http", "grpc", "metrics")]
    command = [sys.executable, "-m", "convoy.cli", "serve", *ports, *options]
    with log_path.open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout
        banner = ""
        for line in process.stdout:
            banner += line
            if "/metrics" in line:
                break
        matches = [re.search(rf"{api} +(\S+)", banner) for api in ("HTTP", "gRPC")]
        http, address = (match[1] for match in matches if match)
        wait_until_ready(http, process, log_path)
        yield GatewayProcess(process, address, log_path)
    finally:
        process.terminate()
        process.wait(60)


def wait_until_ready(http: str, process: subprocess.Popen[str], log_path: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline_s:
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"{http}/readyz")
            return
        time.sleep(0.1)
    raise SystemExit(f"the gateway is not ready:\n{log_path.read_text()[-2000:]}")


def cpu_s(pid: int) -> tuple[float, float]:
    """CPU seconds of the process, and of these of its main thread."""
    return _cpu_s(Path(f"/proc/{pid}/stat")), _cpu_s(Path(f"/proc/{pid}/task/{pid}/stat"))


def _cpu_s(path: Path) -> float:
    fields = path.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


# ---------------------------------------------------------------- clients


def client(address: str, model: str, content: bytes, in_flight: int, seconds: float) -> list[Any]:
    """(latency ms, batch size, stage times in µs) of each answer after warm-up."""
    return asyncio.run(_client(address, model, content, in_flight, seconds))


async def _client(
    address: str, model: str, content: bytes, in_flight: int, seconds: float
) -> list[Any]:
    answers: list[Any] = []
    request = pb.ClassifyRequest(model=model, image=pb.Image(content=content))
    begin_s = time.monotonic() + WARM_UP_S

    async with grpc.aio.insecure_channel(address) as channel:
        classify = pb_grpc.ImageClassifierStub(channel).Classify

        async def loop() -> None:
            while (sent_s := time.monotonic()) < begin_s + seconds:
                answer = await classify(request)
                took_ms = (time.monotonic() - sent_s) * 1e3
                if sent_s >= begin_s:
                    answers.append((took_ms, answer.served.batch_size, stages(answer.timing)))

        await asyncio.gather(*(loop() for _ in range(in_flight)))
    return answers


def stages(timing: pb.Timing) -> tuple[int, ...]:
    return tuple(getattr(timing, f"{stage}_us") for stage in STAGES)


STAGES = ("decode", "preprocess", "queue", "compute", "infer", "total")


def measure(
    running: list[GatewayProcess], model: str, in_flight: int, seconds: float
) -> dict[str, Any]:
    """Keeps `in_flight` requests open at each gateway, from about `CLIENTS` processes in all."""
    content = photo()
    clients = max(1, min(CLIENTS, in_flight) // len(running))  # processes per gateway
    addresses = [gateway.address for gateway in running for _ in range(clients)]
    with ProcessPoolExecutor(len(addresses), get_context("spawn")) as processes:
        futures = [
            processes.submit(client, address, model, content, in_flight // clients, seconds)
            for address in addresses
        ]
        time.sleep(WARM_UP_S + 1.5)  # they are in the middle of it, then
        before = [cpu_s(gateway.process.pid) for gateway in running]
        time.sleep(seconds / 2)
        after = [cpu_s(gateway.process.pid) for gateway in running]
        answers = [answer for future in futures for answer in future.result()]
    took_ms, batch_sizes, times_us = zip(*answers, strict=True)
    used = (np.array(after) - np.array(before)) / (seconds / 2)
    p50_us = np.median(np.array(times_us), axis=0)
    return {
        "model": model,
        "gateways": len(running),
        "in_flight": in_flight,
        "answers_per_s": round(len(answers) / seconds),
        "p50_ms": round(float(np.percentile(took_ms, 50)), 1),
        "p99_ms": round(float(np.percentile(took_ms, 99)), 1),
        "mean_batch": round(len(batch_sizes) / sum(1 / size for size in batch_sizes), 1),
        "largest_batch": max(batch_sizes),
        "gateway_cores": round(float(used[:, 0].sum()), 1),
        "event_loop_cores": [round(float(value), 2) for value in used[:, 1]],
        "p50_us": {stage: int(value) for stage, value in zip(STAGES, p50_us, strict=True)},
    }


def decoding(threads: int, seconds: float) -> int:
    """Images per second that the gateway's code decodes and resizes in that many threads."""
    facts = pb.Preprocessing(photo=pb.Photo(resize=256, crop=224))
    content = photo()
    done: Counter[int] = Counter()
    end_s = time.monotonic() + seconds

    def work(number: int) -> None:
        while time.monotonic() < end_s:
            image = decode(content, max_bytes=1 << 24, max_pixels=50_000_000)
            prepare(image.pixels, facts)
            done[number] += 1

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    return round(done.total() / seconds)


def append_line(path: Path, line: str) -> None:
    with path.open("a") as lines:
        lines.write(line + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--in-flight", default="1,16,64,192")
    parser.add_argument("--gateways", default="1")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--decoding", action="store_true", help="first, decoding alone")
    parser.add_argument("--logs", type=Path, default=Path("/tmp"))
    parser.add_argument("--json", type=Path, help="where each row is also written, one a line")
    parser.add_argument("options", nargs="*")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores; a JPEG of {len(photo())} bytes")
    if arguments.decoding:
        for threads in (1, 4, os.cpu_count() or 1):
            print(f"decoding alone, {threads} threads: {decoding(threads, 3.0)} images/s")
    options = [f"--repository={arguments.repository}", f"--models={arguments.model}"]
    options += arguments.options
    for count in map(int, arguments.gateways.split(",")):
        with gateways(count, options, arguments.logs) as running:
            for in_flight in map(int, arguments.in_flight.split(",")):
                row = measure(running, arguments.model, in_flight, arguments.seconds)
                print(*(f"{name}={value}" for name, value in row.items()), flush=True)
                if arguments.json:
                    append_line(arguments.json, json.dumps(row))


if __name__ == "__main__":
    main()
