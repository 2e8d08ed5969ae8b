"""How long the worst message of each method holds the event loop of a gateway, and its answer.

    PYTHONPATH=. .venv/bin/python bench/worst_messages.py [--repeat 3] [--json FILE]

All that goes on in a gateway waits for its event loop, so one message may not hold it for more
than 100 ms. A task inside the gateway wakes every 5 ms, and notes how late it was. Neighbours on
the same machine make it late too: of the repetitions the best counts. The CPU time of the loop's
thread between two awakenings does not depend on them, and leaves out what other threads did
meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import multiprocessing
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import httpx

from bench.messages import LARGEST, WORST, Worst

TICK_S = 0.005


# ---------------------------------------------------------------- sending them


def send(worst: Worst, http: str, grpc_address: str, timeout_s: float = 120.0) -> str:
    """The code and the beginning of the message of the answer; both wires have gRPC's codes."""
    message = worst.build()
    if worst.is_http:
        method, _, path = worst.target.partition(" ")
        answer = httpx.request(
            method, f"{http}{path}", content=message, headers=worst.headers, timeout=timeout_s
        )
        return f"{answer.status_code}: {shown(answer.text)}"
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(grpc_address, options=options) as channel:
        stream: Any = channel.stream_stream(worst.target)
        call = stream(iter([message]), timeout=timeout_s)
        try:
            first = next(iter(call), b"")  # a stream answers a message with an error of its own
        except grpc.RpcError:
            return f"{call.code().name}: {shown(call.details())}"
        return f"OK: {shown(repr(first))}"


def shown(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:150]}… ({len(text)} characters)"


# ---------------------------------------------------------------- the gateway, in a process


class Watch(threading.Thread):
    """How late the event loop was, and what CPU time its thread used, since it was last asked."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__(daemon=True)
        self._pipe = pipe
        self._late_s = self._cpu_s = 0.0

    async def tick(self) -> None:
        due_s, cpu_s = time.monotonic(), time.thread_time()
        while True:
            due_s += TICK_S
            await asyncio.sleep(due_s - time.monotonic())
            now_s, now_cpu_s = time.monotonic(), time.thread_time()
            self._late_s = max(self._late_s, now_s - due_s)
            self._cpu_s = max(self._cpu_s, now_cpu_s - cpu_s)
            due_s, cpu_s = now_s, now_cpu_s

    def run(self) -> None:
        while True:
            self._pipe.recv()
            self._pipe.send((self._late_s, self._cpu_s))
            self._late_s = self._cpu_s = 0.0


def serve(pipe: Connection, http: str, grpc_address: str, log_path: str) -> None:
    """The gateway of whichever tree is first on the path."""
    from server.gateway import Gateway
    from server.settings import Settings

    logging.basicConfig(filename=log_path, level="INFO", format="%(message)s")
    settings = Settings(
        models=["lenet5"],
        http_address=http,
        grpc_address=grpc_address,
        metrics_address=free_address(),
        max_connections=100,
    )
    watch = Watch(pipe)
    watch.start()

    async def run() -> None:
        ticking = asyncio.create_task(watch.tick())
        await Gateway(settings).run()
        ticking.cancel()

    asyncio.run(run())


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@dataclass
class Gateway:
    http: str
    grpc_address: str
    log_path: Path
    pipe: Connection

    def held(self) -> tuple[float, float]:
        """Seconds on the clock and of CPU since the last call."""
        self.pipe.send("")
        late_s, cpu_s = self.pipe.recv()
        return late_s, cpu_s


@contextmanager
def running() -> Iterator[Gateway]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    http, grpc_address = free_address(), free_address()
    with tempfile.TemporaryDirectory() as folder:
        log_path = Path(folder) / "log"
        arguments = (theirs, http, grpc_address, str(log_path))
        process = context.Process(target=serve, args=arguments)
        process.start()
        try:
            wait_until_ready(f"http://{http}")
            yield Gateway(f"http://{http}", grpc_address, log_path, ours)
        finally:
            process.kill()
            process.join()


def wait_until_ready(http: str) -> None:
    for _ in range(600):
        with suppress(httpx.TransportError):
            if httpx.get(f"{http}/readyz").status_code == 200:
                return
        time.sleep(0.1)
    raise RuntimeError("the gateway was not ready within a minute")


# ---------------------------------------------------------------- what is measured


@dataclass
class Measured:
    name: str
    target: str
    answer: str
    held_ms: float  # on the clock
    cpu_ms: float
    log_bytes: int


def measure(gateway: Gateway, worst: Worst, repeat: int) -> Measured:
    held = []
    before_bytes = gateway.log_path.stat().st_size
    for _ in range(repeat):
        gateway.held()
        answer = send(worst, gateway.http, gateway.grpc_address)
        time.sleep(10 * TICK_S)  # until the ticks that the message delayed have been counted
        held.append(gateway.held())
    late_s, cpu_s = (min(times) for times in zip(*held, strict=True))
    log_bytes = (gateway.log_path.stat().st_size - before_bytes) // repeat
    target = worst.target if len(worst.target) < 80 else f"{worst.target[:16]}…"
    return Measured(worst.name, target, answer, late_s * 1e3, cpu_s * 1e3, log_bytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeat", type=int, default=3, help="of each message (default 3)")
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    table = []
    print(f"{'held ms':>8} {'CPU ms':>8} {'log B':>9}  message, method, answer")
    with running() as gateway:
        for worst in [*WORST, *LARGEST]:
            row = measure(gateway, worst, options.repeat)
            table.append(asdict(row))
            print(
                f"{row.held_ms:8.1f} {row.cpu_ms:8.1f} {row.log_bytes:9d}  {row.name} to "
                f"{row.target}\n{'':29}{row.answer}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
