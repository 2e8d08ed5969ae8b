"""Models run by a Triton server that the gateway installs, starts, watches and stops.

It is for Linux without Docker and for integration tests. The server and its backends are a process
group of their own and listen on loopback. If the server dies or hangs, the group is killed, and a
new server with nothing loaded takes its port. When the gateway ends, however it does, they end too.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import ClassVar

from server.errors import RunnerUnavailable, TritonCannotStart
from server.folder_names import is_utf8
from server.observability import tracing
from server.runners.base import MAX_LOAD_S, Fingerprint, LoadedModel
from server.runners.triton import TritonRunner
from server.runners.tritonserver_wheel import (
    environment,
    install,
    lay_out_backends,
)
from server.runners.version_files import (
    CONFIG_FILE,
    check_files,
    read_config,
    read_fingerprint,
)
from server.settings import default_cache_path
from server.tasks import cancel_and_wait

logger = logging.getLogger(__name__)

_SHARED_MEMORY_PATH = Path("/dev/shm")
_INITIAL_BACKOFF_S, _MAX_BACKOFF_S = 0.1, 10.0
_STABLE_S = 30.0  # a server that ran for longer is restarted after the initial pause
# Each backend process that dies leaves 36 threads and 1 MB of shared memory in the server.
_MAX_DEATHS = 20

# Becomes the server, which the kernel stops when the gateway dies, however it does.
# (Setting that between fork and exec in the gateway is not safe because of gRPC's threads.)
_LAUNCHER = """\
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the gateway is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class TritonLocalRunner(TritonRunner):
    """A `Runner` over a tritonserver that lives from `start` to `close`."""

    def __init__(
        self,
        repository_path: Path,
        *,
        cache_path: Path | None = None,
        otlp_endpoint: str | None = None,
        start_timeout_s: float = 30.0,
        stop_timeout_s: float = 5.0,
        control_timeout_s: float = 5.0,
        hang_timeout_s: float = 5.0,
        load_timeout_s: float = MAX_LOAD_S,
        inference_threads: int = 1,
    ) -> None:
        super().__init__(
            f"127.0.0.1:{_free_port()}",
            control_timeout_s=control_timeout_s,
            load_timeout_s=load_timeout_s,
        )
        self._repository_path = repository_path.absolute()
        self._cache_path = cache_path or default_cache_path()
        self._otlp_endpoint = otlp_endpoint
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._inference_threads = inference_threads
        self._hang_timeout_s = hang_timeout_s
        # When the server will be killed unless it answers; None: it answered the last request.
        self._given_up_at_s: float | None = None
        self._deaths = 0  # of backend processes since this server was started
        # The prefix of its files outside, which shows whose they are.
        self._own = f"convoy-{os.getpid()}-{secrets.token_hex(4)}-"
        self._resources = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Returns when the server is live. The first time it is installed before (a minute).

        `close` releases the resources of a start that failed.

        Raises:
            TritonCannotStart: it cannot be installed here, or does not start.
        """
        server_path = await asyncio.to_thread(install, self._cache_path)
        await asyncio.to_thread(_remove_leftovers)
        folder = self._resources.enter_context(tempfile.TemporaryDirectory(prefix=self._own))
        backends_path = Path(folder, "backends")
        await asyncio.to_thread(lay_out_backends, server_path, backends_path)
        if not is_utf8(self._repository_path):
            self._repository_path = await asyncio.to_thread(_link, self._repository_path, folder)
        self._command = self._command_line(server_path, backends_path)
        self._log_fd = await self._open_log()
        self._process = await self._launch()
        self._resources.push_async_callback(self._stop)
        await self._wait_until_live()
        self._resources.push_async_callback(cancel_and_wait, asyncio.create_task(self._watch()))

    async def index(self) -> dict[str, bool]:
        """As in `Runner`. Kills a server that has hung for longer than the timeout, since this is
        called every second; a new one is then started, as for a server that died.
        """
        try:
            index = await super().index()
        except RunnerUnavailable:
            self._end_if_it_hangs()
            raise
        self._given_up_at_s = None
        return index

    async def fingerprint(self, name: str) -> Fingerprint:
        return await asyncio.to_thread(read_fingerprint, self._repository_path / name)

    async def load(self, name: str) -> LoadedModel:
        await asyncio.to_thread(_check_version, self._repository_path / name)
        if name in self._dead:
            self._end_if_it_leaks()
        return await super().load(name)

    async def close(self) -> None:
        await self._resources.aclose()
        await super().close()

    def _command_line(self, server_path: Path, backends_path: Path) -> list[str]:
        host, _, port = self.address.rpartition(":")
        return [
            str(server_path / "bin" / "tritonserver"),
            f"--model-repository={self._repository_path}",
            f"--backend-directory={backends_path}",
            "--model-control-mode=explicit",
            "--disable-auto-complete-config",
            "--exit-on-error=false",
            "--strict-readiness=false",
            "--exit-timeout-secs=5",
            "--allow-http=false",
            "--allow-metrics=false",
            f"--grpc-address={host}",
            f"--grpc-port={port}",
            "--pinned-memory-pool-byte-size=0",
            f"--backend-config=python,shm-region-prefix-name={self._own}",
            # Loading a model may take that long on a busy machine.
            "--backend-config=python,stub-timeout-seconds=120",
            *self._trace_options(),
        ]

    def _trace_options(self) -> list[str]:
        """Triton sends its spans, children of ours, to the same endpoint."""
        if not self._otlp_endpoint:
            return []
        settings = (
            "mode=opentelemetry",
            "level=TIMESTAMPS",
            # Only requests whose caller traces them.
            "rate=0",
            f"opentelemetry,url={tracing.split_credentials(self._otlp_endpoint)[0]}",
        )
        return [f"--trace-config={setting}" for setting in settings]

    def _trace_credentials(self) -> dict[str, str]:
        """By a variable, since every user of the machine can read command lines."""
        credentials = self._otlp_endpoint and tracing.split_credentials(self._otlp_endpoint)[1]
        if not credentials:
            return {}
        basic = base64.b64encode(":".join(credentials).encode()).decode()
        return {"OTEL_EXPORTER_OTLP_TRACES_HEADERS": f"authorization=Basic {basic}"}

    def _backend_environment(self) -> dict[str, str]:
        """As the setting, since the gateway's own environment is that of its backends."""
        return {"CONVOY_INFERENCE_THREADS": str(self._inference_threads)}

    async def _open_log(self) -> int:
        """The writing end of a pipe, for the logs of successive servers."""
        read_fd, write_fd = os.pipe()
        self._resources.callback(os.close, write_fd)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            _LogRelay, os.fdopen(read_fd, "rb", buffering=0)
        )
        self._resources.callback(transport.close)
        return write_fd

    async def _launch(self) -> asyncio.subprocess.Process:
        self._given_up_at_s = time.monotonic() + self._start_timeout_s
        self._deaths = 0
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *self._command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self._log_fd,
            stderr=self._log_fd,
            env=environment() | self._trace_credentials() | self._backend_environment(),
            start_new_session=True,
        )

    async def _wait_until_live(self) -> None:
        deadline_s = time.monotonic() + self._start_timeout_s
        while not await self._is_live():
            if self._process.returncode is not None:
                raise TritonCannotStart(
                    f"tritonserver ended with code {self._process.returncode} when it was started; "
                    "its last messages are in the log"
                )
            if time.monotonic() > deadline_s:
                raise TritonCannotStart(
                    f"tritonserver did not answer within {self._start_timeout_s:.0f} s"
                )
            await asyncio.sleep(0.02)

    async def _watch(self) -> None:
        """Restarts the server when it ends, after a pause that grows while it keeps ending."""
        pause_s = _INITIAL_BACKOFF_S
        while True:
            started_s = time.monotonic()
            code = await self._process.wait()
            self._clear()
            if time.monotonic() - started_s > _STABLE_S:
                pause_s = _INITIAL_BACKOFF_S
            logger.error("tritonserver ended with code %s; restarting it", code)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _MAX_BACKOFF_S)
            try:
                self._process = await self._launch()
            except OSError as error:
                logger.error("tritonserver could not be started: %s", error)

    def _end_if_it_leaks(self) -> None:
        self._deaths += 1
        if self._deaths == _MAX_DEATHS:
            logger.warning("%d backend processes died; restarting tritonserver", self._deaths)
            self._clear()

    def _end_if_it_hangs(self) -> None:
        # Counted from the first unanswered request: a gateway that was itself suspended finds one
        # request unanswered, although the server is fine.
        now_s = time.monotonic()
        if self._given_up_at_s is None:
            self._given_up_at_s = now_s + self._hang_timeout_s
        elif now_s >= self._given_up_at_s and self._process.returncode is None:
            logger.error("tritonserver hangs; killing it")
            self._clear()

    async def _stop(self) -> None:
        """Requests in flight may finish within the stop timeout."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), self._stop_timeout_s)
        self._clear()
        await self._process.wait()

    def _clear(self) -> None:
        """Kills what is left of the server's process group, and removes its shared memory."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for path in _SHARED_MEMORY_PATH.glob(f"{self._own}*"):
            path.unlink(missing_ok=True)


class _LogRelay(asyncio.Protocol):
    """Logs Triton's lines, each a level lower: its errors are our warnings."""

    _LEVELS: ClassVar = {b"E": logging.WARNING, b"W": logging.INFO}
    # At every start without a GPU.
    _NOISE = b"CudaDriverHelper has not been initialized"

    def __init__(self) -> None:
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            is_triton = re.match(rb"([EWI])\d{4} ", line) and self._NOISE not in line
            level = self._LEVELS.get(line[:1], logging.DEBUG) if is_triton else logging.DEBUG
            logger.log(level, "tritonserver: %s", line.decode(errors="replace"))


def _check_version(path: Path) -> None:
    """Triton would open a FIFO, start any number of processes, and report what is wrong with a
    config.pbtxt only in its log.

    Raises:
        LoadFailed: as in `InProcessRunner.load`.
    """
    check_files(path)
    read_config(path / CONFIG_FILE)


def _link(path: Path, folder: str) -> Path:
    link = Path(folder, "models")
    link.symlink_to(path)
    return link


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _remove_leftovers() -> None:
    """Removes shared memory and temporary folders of gateways that were killed."""
    for folder in (_SHARED_MEMORY_PATH, Path(tempfile.gettempdir())):
        for path in folder.glob("convoy-*"):
            owner = re.match(r"convoy-(\d+)-", path.name)
            if owner and not Path("/proc", owner[1]).exists():
                with contextlib.suppress(OSError):  # another user's, or gone a moment ago
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
