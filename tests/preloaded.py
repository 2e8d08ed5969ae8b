"""Gateways by the hundred: forked from a process that has imported what they are made of.

Importing takes most of the CPU time until a gateway is ready. A gateway that is forked reads its
arguments and its environment and ends as any other, and nothing else runs in its process before.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parents[1]
MAX_REQUEST_BYTES = 1 << 20
SIZE = 4  # bytes of a number in a report

# ------------------------------------------------------------------------------ in the tests


class ForkedProcess:
    """What the tests use of a `subprocess.Popen`."""

    def __init__(self, args: Sequence[str], stdout: TextIO, report: int) -> None:
        self.args = args
        self.stdout = stdout
        self.returncode: int | None = None
        self._report = report
        self.pid = read_number(report)

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout_s: float | None = None) -> int:
        if self.returncode is None:
            ending = select.poll()  # select() takes no number above 1023
            ending.register(self._report, select.POLLIN)
            if not ending.poll(None if timeout_s is None else timeout_s * 1e3):
                raise subprocess.TimeoutExpired(self.args, timeout_s or 0)
            self.returncode = read_number(self._report)
            os.close(self._report)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def fork_gateway(arguments: Sequence[str], stderr: TextIO) -> ForkedProcess:
    """Runs `convoy serve` with these arguments, in this process's environment."""
    output, stdout = os.pipe()
    report, reported = os.pipe()
    request = json.dumps([["serve", *arguments], dict(os.environ)]).encode()
    socket.send_fds(start_preloaded(), [request], [stdout, stderr.fileno(), reported])
    os.close(stdout)
    os.close(reported)
    return ForkedProcess(arguments, os.fdopen(output), report)


@functools.cache
def start_preloaded() -> socket.socket:
    """It ends with the tests, when the socket is closed."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with there:
        command = [sys.executable, "-m", "tests.preloaded", str(there.fileno())]
        process = subprocess.Popen(
            command, cwd=ROOT, pass_fds=[there.fileno()], stdout=subprocess.DEVNULL
        )

    def end() -> None:
        here.close()
        process.wait()

    atexit.register(end)
    return here


def read_number(report: int) -> int:
    content = os.read(report, SIZE)
    assert len(content) == SIZE, "the process that forks gateways has ended"
    return int.from_bytes(content, "big", signed=True)


def write_number(report: int, number: int) -> None:
    os.write(report, number.to_bytes(SIZE, "big", signed=True))


# ------------------------------------------------------------------------------ the process


def run_gateways(requests: socket.socket) -> None:
    """Forks a gateway for each request; returns in the gateways alone, which are then to run.

    Each has a parent that reports its process ID and its exit status.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from the terminal it is for the tests
    for arguments, environment, (stdout, stderr, report) in read_requests(requests):
        if os.fork() == 0:
            pid = os.fork()
            if pid == 0:
                os.close(report)
                requests.close()
                become(arguments, environment, stdout, stderr)
                return
            os.close(stdout)
            write_number(report, pid)
            _, status = os.waitpid(pid, 0)
            with contextlib.suppress(BrokenPipeError):
                write_number(report, os.waitstatus_to_exitcode(status))
            os._exit(0)
        for descriptor in (stdout, stderr, report):
            os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):  # parents whose gateways have ended
                pass
    sys.exit()


def read_requests(
    requests: socket.socket,
) -> Iterator[tuple[list[str], Mapping[str, str], list[int]]]:
    """Until the tests close their end."""
    while True:
        content, descriptors, *_ = socket.recv_fds(requests, MAX_REQUEST_BYTES, 3)
        if not content:
            return
        arguments, environment = json.loads(content)
        yield arguments, environment, descriptors


def become(
    arguments: Sequence[str], environment: Mapping[str, str], stdout: int, stderr: int
) -> None:
    """Makes this process what `python -m convoy.cli` with these arguments would be."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for target, descriptor in ((1, stdout), (2, stderr)):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["convoy", *arguments]


def import_gateway() -> None:
    """What `convoy serve` imports until it is ready."""
    from server.main import silence_grpc_core

    silence_grpc_core()
    for name in ("server.serve_options", "server.workers.worker"):
        import_module(name)
    gc.freeze()  # a garbage collector that looked through it would copy its pages in each gateway


if __name__ == "__main__":
    from convoy import cli

    import_gateway()
    run_gateways(socket.socket(fileno=int(sys.argv[1])))
    cli.main()
