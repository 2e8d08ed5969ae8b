"""Batches the requests for one version, as Triton's dynamic batching does without a delay.

An instance that becomes free takes the oldest pending images, up to the maximum, and never waits
for more.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import model_config_pb2

from server.errors import InferenceFailed
from server.runners.base import Inference
from server.runners.onnx_session import Images, OnnxModel

Outputs = dict[str, npt.NDArray[Any]]  # by name

PROBABILITIES = "probabilities"


@dataclass
class PendingRequest:
    """The images of one request, and the future of its answer."""

    images: Images
    outputs: Sequence[str]  # beside probabilities
    answer: asyncio.Future[Inference]
    since_s: float = field(default_factory=time.perf_counter)


class Batcher:
    """Computes the images of one version, several requests per batch."""

    def __init__(self, network: OnnxModel, config: model_config_pb2.ModelConfig) -> None:
        self._network = network
        self._max_batch_size = max(1, config.max_batch_size)
        self._shares_batches = config.HasField("dynamic_batching")
        self._idle_instances = sum(group.count or 1 for group in config.instance_group) or 1
        self._threads = ThreadPoolExecutor(self._idle_instances, thread_name_prefix="infer")
        self._waiting: deque[PendingRequest] = deque()
        self._running: set[asyncio.Task[None]] = set()

    async def submit(self, images: Images, outputs: Sequence[str] = ()) -> Inference:
        if len(images) > self._max_batch_size:
            raise InferenceFailed(
                f"{len(images)} images in one batch; the model takes at most {self._max_batch_size}"
            )
        request = PendingRequest(images, outputs, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        # Later, so that requests of the same turn of the event loop share the batch.
        asyncio.get_running_loop().call_soon(self._start_batches)
        return await request.answer

    async def close(self) -> None:
        """Finishes pending and running requests; the runner submits no new ones."""
        while self._running:
            await asyncio.gather(*self._running)
        self._threads.shutdown()

    def _start_batches(self) -> None:
        while self._idle_instances and (batch := self._next_batch()):
            self._idle_instances -= 1
            task = asyncio.create_task(self._compute(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _next_batch(self) -> list[PendingRequest]:
        """The oldest requests that fit in one batch, without those that nobody awaits any more."""
        batch: list[PendingRequest] = []
        room = self._max_batch_size
        while self._waiting and len(self._waiting[0].images) <= room:
            request = self._waiting.popleft()
            if request.answer.done():
                continue
            batch.append(request)
            room -= len(request.images)
            if not self._shares_batches:
                break
        return batch

    async def _compute(self, batch: Sequence[PendingRequest]) -> None:
        try:
            await self._answer_each(batch)
        finally:
            self._idle_instances += 1
            self._start_batches()

    async def _answer_each(self, batch: Sequence[PendingRequest]) -> None:
        """If requests fail together, each is retried alone: one image may be the cause."""
        loop = asyncio.get_running_loop()
        started_s = time.perf_counter()
        try:
            outputs = await loop.run_in_executor(self._threads, self._run, batch)
        except Exception as error:
            if len(batch) > 1:
                for request in batch:
                    await self._answer_each([request])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(InferenceFailed(f"the model failed: {error}"))
        else:
            self._answer(batch, outputs, started_s)

    def _run(self, batch: Sequence[PendingRequest]) -> Outputs:
        images = [request.images for request in batch]
        together = images[0] if len(images) == 1 else np.concatenate(images)
        names = dict.fromkeys(name for request in batch for name in request.outputs)
        return self._network.run(together, [PROBABILITIES, *names])

    def _answer(self, batch: Sequence[PendingRequest], outputs: Outputs, started_s: float) -> None:
        compute_us = int((time.perf_counter() - started_s) * 1e6)
        probabilities, first = outputs[PROBABILITIES], 0
        for request in batch:
            last = first + len(request.images)
            if not request.answer.done():
                inference = Inference(
                    probabilities[first:last],
                    batch_size=len(probabilities),
                    queue_us=int((started_s - request.since_s) * 1e6),
                    compute_us=compute_us,
                    outputs={name: outputs[name][first:last] for name in request.outputs},
                )
                request.answer.set_result(inference)
            first = last
