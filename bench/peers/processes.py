"""Servers as processes: started, stopped for the time of others' turns, and their CPU time."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from server.cpus import available_cpus

STOP_TIMEOUT_S = 5.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CORES = available_cpus()


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    cpu_s: float  # with that of children that have ended


class ServerProcess:
    """A server, with all processes that it starts."""

    def __init__(
        self, command: Sequence[str | Path], environment: Mapping[str, str], log_path: Path
    ) -> None:
        self.log_path = log_path
        with log_path.open("w") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

        self.pid = self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def cpu_s(self) -> float:
        return sum(process.cpu_s for process in descendants(self.pid))

    def pause(self) -> None:
        """Some servers poll while nobody asks, and would take time from the others."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        self.resume()
        family = descendants(self.pid)
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_S)
        for process in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        for process in descendants(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def descendants(pid: int) -> list[Process]:
    """The process, its children, and theirs."""
    everyone = list(processes())
    family = [process for process in everyone if process.pid == pid]
    for ancestor in family:  # grows while it is read
        family += [process for process in everyone if process.parent == ancestor.pid]
    return family


def processes() -> Iterator[Process]:
    """Those of the whole machine."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            cpu_s = sum(map(int, fields[11:15])) / TICKS_PER_S
            yield Process(int(path.parent.name), int(fields[1]), cpu_s)


def machine_cpu_s() -> float:
    """CPU time of all processes, and what the hypervisor gave to other machines."""
    user, nice, system, _, _, interrupts, soft, steal = (
        int(field) for field in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    )
    return (user + nice + system + interrupts + soft + steal) / TICKS_PER_S


class CpuWatch:
    """What others than a server and this process use of the cores, from its creation on."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._before = self._now()

    def read_others(self) -> float:
        """Their share of the cores' time."""
        elapsed_s, all_s, server_s, client_s = (
            now - before for now, before in zip(self._now(), self._before, strict=True)
        )
        return max(0.0, all_s - server_s - client_s) / (elapsed_s * (os.cpu_count() or 1))

    def _now(self) -> tuple[float, float, float, float]:
        return time.monotonic(), machine_cpu_s(), self._server.cpu_s, time.process_time()
