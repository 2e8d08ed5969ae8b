"""A runner that counts its requests, so that the idlest of several can be picked."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from server.errors import RunnerUnavailable, ServingError
from server.runners.base import Fingerprint, Hung, Inference, LoadedModel, Runner


class TrackedRunner:
    """A `Runner` with a name and counters."""

    def __init__(self, runner: Runner, name: str) -> None:
        self.inner = runner
        self.name = name  # HOST:PORT, or "in-process"
        self._is_closed = False
        self.in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.outcomes: Counter[str] = Counter()  # of finished requests: "OK", or a reason
        self.abandoned = 0  # sessions that could not be ended

    async def index(self) -> dict[str, bool]:
        return await self.inner.index()

    async def fingerprint(self, name: str) -> Fingerprint:
        return await self.inner.fingerprint(name)

    async def load(self, name: str) -> LoadedModel:
        with self._counting_abandoned():
            return await self.inner.load(name)

    async def unload(self, name: str) -> None:
        with self._counting_abandoned():
            await self.inner.unload(name)

    async def infer(
        self,
        name: str,
        images: npt.NDArray[np.uint8],
        timeout_s: float | None = None,
        outputs: Sequence[str] = (),
    ) -> Inference:
        if self._is_closed:  # after it was picked
            raise RunnerUnavailable(f"{self.name} was removed")
        self.in_flight += 1
        self._idle.clear()
        outcome = "CANCELLED"
        try:
            inference = await self.inner.infer(name, images, timeout_s, outputs)
            outcome = "OK"
        except ServingError as error:
            outcome = error.reason
            raise
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()
            self.outcomes[outcome] += 1
        return inference

    @contextlib.contextmanager
    def _counting_abandoned(self) -> Iterator[None]:
        try:
            yield
        except Hung:
            self.abandoned += 1
            raise

    async def idle(self) -> None:
        """Returns when nothing is in flight."""
        await self._idle.wait()

    async def close(self) -> None:
        self._is_closed = True
        await self.inner.close()
