"""The gateways that bench/batching.py compares; and a program, by which some of them are served.

    PYTHONPATH=. .venv/bin/python -m bench.batching_variants WAIT_MS NICE KEY=VALUE serve [OPTIONS]

It is `convoy serve`, but a batch that is not full waits until its oldest request has waited for so
long, the threads that compute are nicer than the others by so much, and ONNX Runtime's sessions
have one more entry in their configuration. Linux alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelParameter

from bench.overload import gateway
from convoy.cli import main
from server.cpus import available_cpus
from server.runners import in_process
from server.runners.batcher import Batcher
from server.runners.daemon_threads import DaemonThreads
from server.runners.version_files import CONFIG_FILE, read_config

CPUS = available_cpus()
AS_IT_IS = "as it is"


@dataclass(frozen=True)
class Variant:
    wait_ms: float = 0.0
    niceness: int = 0  # of the threads that compute
    entry: str = ""  # of ONNX Runtime's configuration of a session, KEY=VALUE
    instances: int = 1
    threads: int = CPUS  # of an instance

    @property
    def program(self) -> list[str]:
        if not (self.wait_ms or self.niceness or self.entry):
            return ["-m", "convoy.cli"]
        words = [str(self.wait_ms), str(self.niceness), self.entry]
        return ["-m", "bench.batching_variants", *words]


VARIANTS = {
    AS_IT_IS: Variant(),
    "waits 1 ms": Variant(wait_ms=1),
    "waits 2 ms": Variant(wait_ms=2),
    "waits 5 ms": Variant(wait_ms=5),
    "two instances": Variant(instances=2),
    "two instances of one thread": Variant(instances=2, threads=1),
    "decodes first": Variant(niceness=10),
    "idle threads spin": Variant(entry="session.intra_op.allow_spinning=1"),
    "small shares of work": Variant(entry="session.dynamic_block_base=4"),
}


def write_repository(source: Path, models: Sequence[str], variant: Variant, folder: Path) -> None:
    for model in models:
        version = folder / f"{model}.v1"
        shutil.copytree(source / version.name, version)
        config = read_config(version / CONFIG_FILE)
        config.instance_group[0].count = variant.instances
        if variant.threads != CPUS:
            threads = ModelParameter(string_value=str(variant.threads))
            config.parameters["intra_op_thread_count"].CopyFrom(threads)
        text = text_format.MessageToString(config, as_utf8=True)
        (version / CONFIG_FILE).write_text(text, encoding="utf-8")


@contextlib.contextmanager
def gateways(
    source: Path, models: Sequence[str], variants: Sequence[str]
) -> Iterator[dict[str, tuple[str, int]]]:
    """Runs one gateway per variant; yields its gRPC address and its process's id."""
    with contextlib.ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        addresses = {}
        for number, name in enumerate(variants):
            variant, repository = VARIANTS[name], folder / str(number)
            write_repository(source, models, variant, repository)
            options = [f"--repository={repository}", "--log-level=warning"]
            log_path = folder / f"{number}.log"
            starting = gateway(options, log_path, program=variant.program)
            address, _, pid = running.enter_context(starting)
            addresses[name] = (address, pid)
        yield addresses


# ---------------------------------------------------------------- the program
# mypy forbids to replace a method of a class; here that is the point.


def wait_before_batches(wait_s: float) -> None:
    start_batches = Batcher._start_batches

    def wait(self: Batcher) -> None:
        images = sum(len(request.images) for request in self._waiting)
        if self._idle_instances and 0 < images < self._max_batch_size:
            left_s = self._waiting[0].since_s + wait_s - time.perf_counter()
            if left_s > 0:
                asyncio.get_running_loop().call_later(left_s, wait, self)
                return
        start_batches(self)

    Batcher._start_batches = wait  # type: ignore[method-assign]


def compute_nicely(niceness: int) -> None:
    """ONNX Runtime's threads inherit it from the one that opens the graph."""
    work = DaemonThreads._work

    def work_nicely(self: DaemonThreads) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
        work(self)

    DaemonThreads._work = work_nicely  # type: ignore[method-assign]


def configure_sessions(entry: str) -> None:
    key, _, value = entry.partition("=")
    set_options = in_process.set_options

    def set_more_options(options: ort.SessionOptions, n_threads: int) -> None:
        set_options(options, n_threads)
        options.add_session_config_entry(key, value)

    in_process.set_options = set_more_options


if __name__ == "__main__":
    wait_before_batches(float(sys.argv[1]) / 1e3)
    compute_nicely(int(sys.argv[2]))
    if sys.argv[3]:
        configure_sessions(sys.argv[3])
    sys.argv[1:] = sys.argv[4:]
    main()
