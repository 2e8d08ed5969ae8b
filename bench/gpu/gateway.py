"""The whole gateway over gRPC on this machine: JPEG in, labels out, in a closed loop.

    PYTHONPATH=. python bench/gpu/gateway.py --repository DIR --model resnet50
        [--workers 1,2,4,8] [--in-flight 1,32,128,256] [--seconds 6] [--h2load]
        [-- OPTIONS OF convoy serve]

For each number of workers (processes of one gateway that share its ports and the GPU), and of
requests held open: how many answers a second, how long they took, which stage took how long, how
many images were in a batch, on which device, and how busy the processors were, with the event loops
(the main threads; that of the supervisor first) apart. The kernel gives each connection to one
worker, so clients open eight per worker and take turns with them. They are processes of this
machine, too, and take some of its cores: h2load (Debian's package nghttp2-client) takes far less,
and sends over both wires, a connection per request held open. Linux alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from bench.overload import gateway
from bench.pictures import photo
from bench.workers import Case, Served, classification_cases
from bench.workers import measure as run_h2load
from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc as pb_grpc
from server.preprocessing import prepare
from server.preprocessing.decode import decode

CLIENTS = 4  # processes
CONNECTIONS_PER_WORKER = 8
OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)
START_TIMEOUT_S = 60.0  # of the clients
WARM_UP_S = 3.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(served: Served) -> list[tuple[float, float]]:
    """CPU seconds of each process, and of these of its main thread."""
    return [
        (read_cpu_s(Path(f"/proc/{pid}/stat")), read_cpu_s(Path(f"/proc/{pid}/task/{pid}/stat")))
        for pid in served.processes()
    ]


def read_cpu_s(path: Path) -> float:
    fields = path.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


# ---------------------------------------------------------------- clients


def client(
    address: str, model: str, content: bytes, in_flight: int, connections: int, seconds: float
) -> list[Any]:
    """(latency ms, batch size, device, stage times in µs) of each answer after warm-up."""
    return asyncio.run(_client(address, model, content, in_flight, connections, seconds))


async def _client(
    address: str, model: str, content: bytes, in_flight: int, connections: int, seconds: float
) -> list[Any]:
    answers: list[Any] = []
    request = pb.ClassifyRequest(model=model, image=pb.Image(content=content))
    begin_s = time.monotonic() + WARM_UP_S

    async with contextlib.AsyncExitStack() as open_channels:
        channels = [
            await open_channels.enter_async_context(
                grpc.aio.insecure_channel(address, options=[OWN_CONNECTION])
            )
            for _ in range(connections)
        ]
        turns = itertools.cycle([pb_grpc.ImageClassifierStub(it).Classify for it in channels])

        async def loop() -> None:
            while (sent_s := time.monotonic()) < begin_s + seconds:
                answer = await next(turns)(request)
                took_ms = (time.monotonic() - sent_s) * 1e3
                if sent_s >= begin_s:
                    served = answer.served
                    took_us = stages(answer.timing)
                    answers.append((took_ms, served.batch_size, served.device, took_us))

        await asyncio.gather(*(loop() for _ in range(in_flight)))
    return answers


def stages(timing: pb.Timing) -> tuple[int, ...]:
    return tuple(getattr(timing, f"{stage}_us") for stage in STAGES)


STAGES = ("decode", "preprocess", "queue", "compute", "infer", "total")


def measure(served: Served, model: str, in_flight: int, seconds: float) -> dict[str, Any]:
    """Keeps about `in_flight` requests open, from at most `CLIENTS` processes."""
    content = photo()
    clients = min(CLIENTS, in_flight)
    each = in_flight // clients
    connections = min(each, CONNECTIONS_PER_WORKER * served.workers // CLIENTS)
    context = get_context("spawn")
    started = context.Barrier(clients + 1, timeout=START_TIMEOUT_S)
    with ProcessPoolExecutor(clients, context, initializer=started.wait) as processes:
        futures = [
            processes.submit(client, served.grpc, model, content, each, connections, seconds)
            for _ in range(clients)
        ]
        started.wait()
        time.sleep(WARM_UP_S + seconds / 4)  # they are in the middle of it, then
        before = cpu_s(served)
        time.sleep(seconds / 2)
        after = cpu_s(served)
        answers = [answer for future in futures for answer in future.result()]
    took_ms, batch_sizes, devices, times_us = zip(*answers, strict=True)
    used = (np.array(after) - np.array(before)) / (seconds / 2)
    p50_us = np.median(np.array(times_us), axis=0)
    return {
        "model": model,
        "devices": sorted(set(devices)),
        "workers": served.workers,
        "in_flight": each * clients,
        "connections": connections * clients,
        "answers_per_s": round(len(answers) / seconds),
        "p50_ms": round(float(np.percentile(took_ms, 50)), 1),
        "p99_ms": round(float(np.percentile(took_ms, 99)), 1),
        "mean_batch": round(len(batch_sizes) / sum(1 / size for size in batch_sizes), 1),
        "largest_batch": max(batch_sizes),
        "gateway_cores": round(float(used[:, 0].sum()), 1),
        "event_loop_cores": [round(float(value), 2) for value in used[:, 1]],
        "p50_us": {stage: int(value) for stage, value in zip(STAGES, p50_us, strict=True)},
    }


def measure_by_h2load(
    served: Served, case: Case, connections: int, seconds: float
) -> dict[str, Any]:
    run_h2load(served, case, connections, WARM_UP_S)
    load = run_h2load(served, case, connections, seconds)
    return {
        "wire": case.name,
        "workers": served.workers,
        "in_flight": connections,
        "answers_per_s": round(load.per_s),
        "mean_ms": round(load.mean_ms, 1),
        "gateway_cpu_ms": round(load.gateway_ms, 2),  # per answer
        "client_cpu_ms": round(load.client_ms, 2),
        "memory_mb": round(served.memory_mb()),
    }


def rows(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    options = [f"--repository={arguments.repository}", f"--models={arguments.model}"]
    options += arguments.options
    with tempfile.TemporaryDirectory() as folder:
        for workers in map(int, arguments.workers.split(",")):
            log_path = Path(folder) / f"{workers}.log"
            starting = gateway([*options, f"--workers={workers}"], log_path)
            with starting as (address, http, pid):
                yield from rows_of(Served(workers, http, address, pid), arguments, Path(folder))


def rows_of(
    served: Served, arguments: argparse.Namespace, folder: Path
) -> Iterator[dict[str, Any]]:
    cases = classification_cases(folder, arguments.model, photo())
    for in_flight in map(int, arguments.in_flight.split(",")):
        if arguments.h2load:
            for case in cases:
                yield measure_by_h2load(served, case, in_flight, arguments.seconds)
        else:
            yield measure(served, arguments.model, in_flight, arguments.seconds)


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
    parser.add_argument("--workers", default="1,2,4,8", help="of the gateway, in turn")
    parser.add_argument("--in-flight", default="1,32,128,256", help="in all")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--h2load", action="store_true", help="the client, over both wires")
    parser.add_argument("--decoding", action="store_true", help="first, decoding alone")
    parser.add_argument("--json", type=Path, help="where each row is also written, one a line")
    parser.add_argument("options", nargs="*")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores; a JPEG of {len(photo())} bytes")
    if arguments.decoding:
        for threads in (1, 4, os.cpu_count() or 1):
            print(f"decoding alone, {threads} threads: {decoding(threads, 3.0)} images/s")
    for row in rows(arguments):
        print(*(f"{name}={value}" for name, value in row.items()), flush=True)
        if arguments.json:
            append_line(arguments.json, json.dumps(row))


if __name__ == "__main__":
    main()
