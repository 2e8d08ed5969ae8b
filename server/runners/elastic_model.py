"""A graph on the CPU that has threads only while it is used: an idle version costs none.

ONNX Runtime creates the threads of a session with it, and keeps them. (It can share threads between
sessions, but shared ones spin for 50 ms after each run, and would take the cores from decoding.) So
a graph is opened without threads, opened again with threads once it has computed for some seconds,
and without again once it has long been idle. Either way it runs on until the other one is open.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt
import onnxruntime as ort

from server.runners.daemon_threads import DaemonThreads
from server.runners.onnx_session import Images, OnnxModel

# More than the proofs of the largest networks, so that these alone do not count as use.
BUSY_CPU_S = 5.0
IDLE_S = 600.0


class ElasticModel:
    """`run` is called in threads, `resize` on the event loop."""

    def __init__(
        self, model: OnnxModel, reopen: Callable[[int], OnnxModel], max_threads: int
    ) -> None:
        """The model has one thread, the caller's; `reopen` opens it with so many."""
        self._model = model
        self._reopen = reopen
        self._max_threads = max_threads
        self._n_threads = 1
        self._computed_s = 0.0  # without threads
        self._used_s = time.monotonic()
        self._reopening: asyncio.Future[OnnxModel] | None = None

    def run(
        self, images: Images, names: Sequence[str], options: ort.RunOptions
    ) -> dict[str, npt.NDArray[Any]]:
        """As `OnnxModel.run`."""
        self._used_s = time.monotonic()
        started_s = time.thread_time()
        try:
            return self._model.run(images, names, options)
        finally:
            self._computed_s += time.thread_time() - started_s

    def resize(self, threads: DaemonThreads) -> None:
        """Opens the graph again, if it should have more threads now or fewer. Called now and then.

        If it cannot be opened again, such as when its file has changed, it stays as it is.
        """
        is_idle = time.monotonic() - self._used_s >= IDLE_S
        is_busy = self._computed_s >= BUSY_CPU_S and not is_idle
        wanted = self._max_threads if is_busy else 1 if is_idle else self._n_threads
        if wanted == self._n_threads or self._reopening:
            return
        self._reopening = threads.submit(self._reopen, wanted)
        self._reopening.add_done_callback(lambda opening: self._replace(opening, wanted))

    def _replace(self, opening: asyncio.Future[OnnxModel], n_threads: int) -> None:
        self._reopening, self._computed_s, self._n_threads = None, 0.0, n_threads
        with contextlib.suppress(Exception):  # ONNX Runtime's errors share no base class
            self._model = opening.result()
