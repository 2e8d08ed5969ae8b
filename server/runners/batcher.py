"""Batches the requests for one version, as Triton's dynamic batching does without a delay.

An instance that becomes free takes the oldest pending images, up to the maximum, and never waits
for more.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from tritonclient.grpc import model_config_pb2

from server.errors import InferenceFailed, ModelNotReady
from server.runners.base import Hung, Inference
from server.runners.daemon_threads import DaemonThreads
from server.runners.elastic_model import ElasticModel
from server.runners.onnx_session import Images, OnnxModel

Outputs = dict[str, npt.NDArray[Any]]  # by name

PROBABILITIES = "probabilities"
FINISH_TIMEOUT_S = 30.0  # for what somebody waits for, when a version is unloaded
END_TIMEOUT_S = 2.0  # for a computation that was told to end; it does between two nodes


@dataclass
class PendingRequest:
    """The images of one request, and the future of its answer."""

    images: Images
    outputs: Sequence[str]  # beside probabilities
    answer: asyncio.Future[Inference]
    since_s: float = field(default_factory=time.perf_counter)


class Batcher:
    """Computes the images of one version, several requests per batch."""

    def __init__(
        self,
        network: OnnxModel | ElasticModel,
        config: model_config_pb2.ModelConfig,
        threads: DaemonThreads,
    ) -> None:
        self._network = network
        self._max_batch_size = max(1, config.max_batch_size)
        self._shares_batches = config.HasField("dynamic_batching")
        self._idle_instances = sum(group.count or 1 for group in config.instance_group) or 1
        self._threads = threads
        self._waiting: deque[PendingRequest] = deque()
        self._running: dict[asyncio.Task[None], Sequence[PendingRequest]] = {}

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

    async def close(self, finish_s: float = FINISH_TIMEOUT_S) -> None:
        """Finishes what somebody waits for, and ends the rest; the runner submits nothing new.

        Raises:
            Hung: a computation does not end.
        """
        await self._wait_while_awaited(finish_s)
        for batch in (*self._running.values(), self._waiting):
            for request in batch:
                if not request.answer.done():  # once it is, its computation ends
                    request.answer.set_exception(ModelNotReady("the version was unloaded"))
        self._waiting.clear()
        if not self._running:
            return
        _, hung = await asyncio.wait(self._running, timeout=END_TIMEOUT_S)
        for task in hung:
            task.cancel()
        if hung:
            raise Hung("a computation of its does not end")

    async def _wait_while_awaited(self, timeout_s: float) -> None:
        batches = (*self._running.values(), self._waiting)
        answers = [request.answer for batch in batches for request in batch]
        awaited = [answer for answer in answers if not answer.done()]
        if awaited:
            await asyncio.wait(awaited, timeout=timeout_s)

    def _start_batches(self) -> None:
        while self._idle_instances and (batch := self._next_batch()):
            self._idle_instances -= 1
            task = asyncio.create_task(self._compute(batch))
            self._running[task] = batch
            task.add_done_callback(self._running.pop)

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
        """If requests fail together, each is retried alone: one image may be the cause.

        A computation that nobody waits for any more is ended.
        """
        started_s = time.perf_counter()
        options = ort.RunOptions()
        for request in batch:
            request.answer.add_done_callback(partial(end_unless_awaited, batch, options))
        try:
            outputs = await self._threads.submit(self._run, batch, options)
        except Exception as error:
            if len(batch) > 1:
                for request in batch:
                    if not request.answer.done():
                        await self._answer_each([request])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(InferenceFailed(f"the model failed: {error}"))
        else:
            self._answer(batch, outputs, started_s)

    def _run(self, batch: Sequence[PendingRequest], options: ort.RunOptions) -> Outputs:
        images = [request.images for request in batch]
        together = images[0] if len(images) == 1 else np.concatenate(images)
        names = dict.fromkeys(name for request in batch for name in request.outputs)
        return self._network.run(together, [PROBABILITIES, *names], options)

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


def end_unless_awaited(
    batch: Sequence[PendingRequest], options: ort.RunOptions, _: asyncio.Future[Inference]
) -> None:
    if all(request.answer.done() for request in batch):
        options.terminate = True
