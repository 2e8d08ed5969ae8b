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
import base64
import gzip
import json
import logging
import multiprocessing
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import httpx
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from tritonclient.grpc import service_pb2

from convoy.v1 import classifier_pb2 as pb

TICK_S = 0.005
LONG = "x" * (15 << 20)  # nearly all that a request may have
MANY = 100_000
IMAGE_CLASSIFIER = "/convoy.v1.ImageClassifier/"
INFERENCE = "/inference.GRPCInferenceService/"
HEALTH = "/grpc.health.v1.Health/"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


# ---------------------------------------------------------------- the messages


@dataclass(frozen=True)
class Worst:
    """A message to a method over gRPC, or to a path over HTTP."""

    name: str
    target: str  # /package.Service/Method, or POST /path
    build: Callable[[], bytes]
    headers: dict[str, str] = field(default_factory=dict)
    is_read: bool = True  # the method makes something of its message

    @property
    def is_http(self) -> bool:
        return " " in self.target


def unknown_field() -> bytes:
    """Field 1000 of any message, 15 MB."""
    return b"\xc2\x3e" + varint(len(LONG)) + LONG.encode()


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def serialized(kind: Any, **fields: Any) -> Callable[[], bytes]:
    return lambda: bytes(kind(**fields).SerializeToString())


def with_long(target: str, kind: Any, name: str) -> Worst:
    return Worst(f"{name} of 15 MB", target, serialized(kind, **{name: LONG}))


def inputs_without_anything() -> bytes:
    return (
        serialized(service_pb2.ModelInferRequest, model_name="lenet5")() + b"\x2a\x00" * 1_000_000
    )


def the_same_output() -> bytes:
    output = service_pb2.ModelInferRequest.InferRequestedOutputTensor(name="label")
    tensor = service_pb2.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES")
    return serialized(
        service_pb2.ModelInferRequest, model_name="lenet5", inputs=[tensor], outputs=[output] * MANY
    )()


def json_of(value: Any) -> Callable[[], bytes]:
    return lambda: json.dumps(value).encode()


def json_list(head: str, item: str, count: int, tail: str) -> Callable[[], bytes]:
    return (head + ",".join([item] * count) + tail).encode


def image_of(size: int) -> bytes:
    content = base64.b64encode(bytes(size)).decode()
    return json.dumps({"image": {"content": content}}).encode()


def parts() -> bytes:
    part = b'--x\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n\r\n\r\n'
    return part * MANY + b"--x--\r\n"


JSON = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=x"}
CLASSIFY = "POST /v1/models/lenet5:classify"
BATCH = "POST /v1/models/lenet5:batchClassify"
INFER = "POST /v2/models/lenet5/infer"
LONG_PATH = "x" * 12_000

CONVOY = [
    with_long(f"{IMAGE_CLASSIFIER}Classify", pb.ClassifyRequest, "model"),
    Worst("an unknown field of 15 MB", f"{IMAGE_CLASSIFIER}Classify", unknown_field),
    Worst("a million names", f"{IMAGE_CLASSIFIER}Classify", lambda: b"\x0a\x01x" * 1_000_000),
    Worst("100,000 empty requests", f"{IMAGE_CLASSIFIER}BatchClassify", lambda: b"\x0a\x00" * MANY),
    with_long(f"{IMAGE_CLASSIFIER}StreamClassify", pb.ClassifyRequest, "model"),
    Worst("an unknown field of 15 MB", f"{IMAGE_CLASSIFIER}ListModels", unknown_field),
    with_long(f"{IMAGE_CLASSIFIER}GetModel", pb.GetModelRequest, "model"),
]
OTHERS = [
    with_long(f"{HEALTH}Check", health_pb2.HealthCheckRequest, "service"),
    with_long(f"{HEALTH}Watch", health_pb2.HealthCheckRequest, "service"),
    with_long(REFLECTION, reflection_pb2.ServerReflectionRequest, "file_containing_symbol"),
]
OPEN_INFERENCE = [
    Worst("a million empty inputs", f"{INFERENCE}ModelInfer", inputs_without_anything),
    Worst("100,000 times the same output", f"{INFERENCE}ModelInfer", the_same_output),
    Worst("100,000 times the same output", f"{INFERENCE}ModelStreamInfer", the_same_output),
    with_long(f"{INFERENCE}ModelReady", service_pb2.ModelReadyRequest, "name"),
    with_long(f"{INFERENCE}ModelMetadata", service_pb2.ModelMetadataRequest, "name"),
    with_long(f"{INFERENCE}ModelConfig", service_pb2.ModelConfigRequest, "name"),
    with_long(f"{INFERENCE}ModelStatistics", service_pb2.ModelStatisticsRequest, "name"),
    with_long(f"{INFERENCE}RepositoryIndex", service_pb2.RepositoryIndexRequest, "repository_name"),
]
# These make nothing of their messages.
UNREAD = [
    Worst("an unknown field of 15 MB", f"{INFERENCE}{method.name}", unknown_field, is_read=False)
    for method in service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    if f"{INFERENCE}{method.name}" not in {worst.target for worst in OPEN_INFERENCE}
]
HTTP = [
    Worst("a model's name of 15 MB", CLASSIFY, json_of({"model": LONG}), JSON),
    Worst("an unknown name of 15 MB", CLASSIFY, json_of({LONG: 1}), JSON),
    Worst("a number of 15 MB", CLASSIFY, lambda: b'{"top_k": ' + b"1" * (15 << 20) + b"}", JSON),
    Worst("15 MB of brackets", CLASSIFY, lambda: b"[" * (15 << 20), JSON),
    Worst("15 MB of quotes", CLASSIFY, lambda: b'"' * (15 << 20), JSON),
    Worst("100,000 parts", CLASSIFY, parts, FORM),
    Worst("a query of 12 kB", f"GET /v1/models?{LONG_PATH}", bytes),
    Worst("a model's name of 12 kB", f"GET /v1/models/{LONG_PATH}", bytes),
    Worst("100,000 empty requests", BATCH, json_list('{"requests":[', "{}", MANY, "]}"), JSON),
    Worst("9,000 empty requests", BATCH, json_list('{"requests":[', "{}", 9_000, "]}"), JSON),
    Worst("100,000 parts", BATCH, parts, FORM),
    Worst("a million empty inputs", INFER, json_list('{"inputs":[', "{}", 1_000_000, "]}")),
    Worst(
        "100,000 times the same output",
        INFER,
        json_list('{"inputs":[],"outputs":[', '{"name":"label"}', MANY, "]}"),
    ),
    Worst("a parameter of 15 MB", INFER, json_of({"inputs": [], "parameters": {"top_k": LONG}})),
    Worst("an id of 15 MB", INFER, json_of({"inputs": [], "id": LONG})),
    Worst(
        "15 MB of brackets, gzipped",
        INFER,
        lambda: gzip.compress(b"[" * (15 << 20)),
        {"content-encoding": "gzip"},
    ),
    Worst("15 MB of quotes", "POST /v2/repository/index", lambda: b'"' * (15 << 20)),
    Worst("a model's name of 12 kB", f"GET /v2/models/{LONG_PATH}", bytes),
    Worst("a model's name of 12 kB", f"GET /v2/models/{LONG_PATH}/ready", bytes),
    Worst("a model's name of 12 kB", f"GET /v2/models/{LONG_PATH}/config", bytes),
    Worst("a model's name of 12 kB", f"GET /v2/models/{LONG_PATH}/stats", bytes),
]
# Not refused for its size: a request of the largest image that there may be.
LARGEST = [Worst("base64 of 15 MB", CLASSIFY, lambda: image_of(11 << 20), JSON)]
WORST = [*CONVOY, *OTHERS, *OPEN_INFERENCE, *UNREAD, *HTTP]


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
        time.sleep(10 * TICK_S)
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
