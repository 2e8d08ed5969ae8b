"""When a version that failed is tried again: after a growing pause, or once its files have changed.

One that could not even be ended keeps a thread and its memory: its files have to change first.

A version that arrives slowly, by `cp -r` or from a bucket, fails until it is whole. It is tried as
soon as its files have changed since the last attempt and stay as they are for a moment.
"""

from __future__ import annotations

import asyncio
import math
import time

from server.runners.base import Fingerprint, Runner

INITIAL_BACKOFF_S, MAX_BACKOFF_S = 2.0, 60.0
SETTLE_S = 0.25  # without a change: nothing is being written


class Retries:
    """The attempts at one version, NAME.vN."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._failures = 0
        self._retry_at_s = 0.0
        self._tried: Fingerprint = None  # of the last attempt

    async def begin(self, runner: Runner) -> None:
        self._tried = await runner.fingerprint(self._folder)

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self, *, is_hung: bool) -> str:
        """Returns when the next attempt is, if nothing changes before."""
        pause_s = min(INITIAL_BACKOFF_S * 2.0**self._failures, MAX_BACKOFF_S)
        self._failures += 1
        self._retry_at_s = math.inf if is_hung else time.monotonic() + pause_s
        return "once its files have changed" if is_hung else f"in {pause_s:.0f} s"

    async def is_due(self, runner: Runner) -> bool:
        if time.monotonic() >= self._retry_at_s:
            return True
        found = await runner.fingerprint(self._folder)
        if found in (None, self._tried):
            return False
        await asyncio.sleep(SETTLE_S)
        if await runner.fingerprint(self._folder) != found:
            return False
        self._failures = 0  # other files, other reasons
        return True
