"""Threads that nothing waits for: neither the end of the process, nor a caller that gives up.

Python joins the threads of concurrent.futures when the process ends. These run what may never
return, such as a model's graph, or a read from a share that hangs. An idle one soon ends.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

IDLE_S = 5.0


class DaemonThread(threading.Thread):
    """`is_busy` while it runs a function."""

    is_busy = False


class DaemonThreads:
    """As many as there are functions at once; the caller limits those."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._waiting = queue.SimpleQueue[Callable[[], None]]()
        self._idle = 0  # threads that wait and are not needed for what waits

    def submit(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Once it is cancelled, its result or error is nobody's."""
        future = Future[T]()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(*arguments))
            except BaseException as error:
                future.set_exception(error)

        with self._lock:
            self._waiting.put(work)
            if self._idle:
                self._idle -= 1
            else:
                DaemonThread(target=self._work, name=self._name, daemon=True).start()
        return asyncio.wrap_future(future)

    def _work(self) -> None:
        thread = threading.current_thread()
        assert isinstance(thread, DaemonThread)
        while work := self._next():
            thread.is_busy = True
            work()
            thread.is_busy = False
            del work  # and with it what it refers to, such as a model
            with self._lock:
                self._idle += 1

    def _next(self) -> Callable[[], None] | None:
        """None: the thread is not needed any more."""
        while True:
            try:
                return self._waiting.get(timeout=IDLE_S)
            except queue.Empty:
                with self._lock:
                    if self._waiting.empty():
                        self._idle -= 1
                        return None


def are_busy() -> bool:
    """Whether a thread still runs what nobody waits for."""
    threads = threading.enumerate()
    return any(isinstance(thread, DaemonThread) and thread.is_busy for thread in threads)
