"""From the bytes of an image to probabilities, for every request and every proof.

bytes → pixels → the network's input → the runner → probabilities
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from convoy.v1 import classifier_pb2 as pb
from server.errors import ImageTooLarge, ShuttingDown
from server.preprocessing import detail, prepare
from server.preprocessing.decode import DecodedImage, decode
from server.runners.base import Inference, LoadedModel, Runner

# Larger pictures take turns of their own, so that a client who sends many of them does not keep all
# threads from the small ones. Phones take pictures of 12 million pixels.
SMALL_PIXELS = 16_000_000
MANY_CLASSES = 100  # fewer are sorted as fast as they are searched for the best


@dataclass(frozen=True)
class PreparedImage:
    image: DecodedImage
    pixels: npt.NDArray[np.uint8]  # H×W×C, the network's input
    decode_us: int
    preprocess_us: int


@dataclass(frozen=True)
class Outcome:
    prepared: PreparedImage
    inference: Inference
    infer_us: int
    covered: npt.NDArray[np.float32] | None = None  # cells×K, if a heat-map needs occlusion

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """K probabilities, for the one image of the request."""
        first: npt.NDArray[np.float32] = self.inference.probabilities[0]
        return first


class Preparation:
    """One image on its way through the threads."""

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._ended_s: float | None = None

    def begin(self) -> None:
        self._began_s = self._began_s or time.monotonic()

    def end(self) -> None:
        self._ended_s = time.monotonic()

    def took_s(self) -> float:
        """Until now, if it has not ended: its work, and its turn among the large pictures."""
        if self._began_s is None:
            return 0.0
        return (self._ended_s or time.monotonic()) - self._began_s


class Pipeline:
    """Decodes in threads: most of the work leaves Python's lock alone, and what a picture may cost
    is bounded, so that a thread need not be killed.
    """

    def __init__(
        self,
        *,
        decode_threads: int,
        max_image_bytes: int,
        max_image_pixels: int,
        exact_decode: bool = False,
    ) -> None:
        self._threads = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
        # One fewer, for the sake of others.
        self._threads_for_large = ThreadPoolExecutor(
            max(1, decode_threads - 1), thread_name_prefix="decode-large"
        )
        self._is_closing = False
        self._max_bytes = max_image_bytes
        self._max_pixels = max_image_pixels
        self._is_exact = exact_decode

    async def run(
        self,
        runner: Runner,
        folder: str,
        model: LoadedModel,
        content: bytes,
        outputs: Sequence[str] = (),
    ) -> Outcome:
        """Classifies one image, without a deadline, and with further outputs of the graph.

        Raises:
            ServingError: the image is unusable, or the runner failed.
        """
        prepared = await self.prepare(content, model.facts.preprocessing)
        return await self.infer(runner, folder, prepared, outputs=outputs)

    async def prepare(
        self,
        content: bytes,
        preprocessing: pb.Preprocessing,
        preparation: Preparation | None = None,
    ) -> PreparedImage:
        """When it is cancelled, what has not begun does not begin.

        Raises:
            ServingError: the image is unusable.
        """
        preparation = preparation or Preparation()
        work = (content, preprocessing, preparation)
        run = asyncio.get_running_loop().run_in_executor
        max_pixels = min(SMALL_PIXELS, self._max_pixels)
        try:
            try:
                return await run(self._threads, self._prepare, *work, max_pixels)
            except ImageTooLarge:
                if max_pixels == self._max_pixels:
                    raise
            return await run(self._threads_for_large, self._prepare, *work, self._max_pixels)
        except (asyncio.CancelledError, RuntimeError) as error:
            if self._is_closing:
                raise ShuttingDown("the gateway is shutting down: try another one") from error
            raise
        finally:
            preparation.end()

    async def infer(
        self,
        runner: Runner,
        folder: str,
        prepared: PreparedImage,
        deadline_s: float | None = None,
        outputs: Sequence[str] = (),
    ) -> Outcome:
        """With further outputs of the graph. The deadline is on the clock of time.monotonic().

        Raises:
            ServingError: the runner failed, or the deadline passed.
        """
        started_s = time.monotonic()
        timeout_s = None if deadline_s is None else max(0.0, deadline_s - started_s)
        inference = await runner.infer(folder, prepared.pixels[np.newaxis], timeout_s, outputs)
        return Outcome(prepared, inference, int((time.monotonic() - started_s) * 1e6))

    def give_up(self) -> None:
        """From now on nothing begins; what waits for its turn ends with ShuttingDown."""
        self._is_closing = True
        for threads in (self._threads, self._threads_for_large):
            threads.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Gives up, and waits for what has begun."""
        self.give_up()
        for threads in (self._threads, self._threads_for_large):
            threads.shutdown()

    def _prepare(
        self,
        content: bytes,
        preprocessing: pb.Preprocessing,
        preparation: Preparation,
        max_pixels: int,
    ) -> PreparedImage:
        preparation.begin()
        started_s = time.perf_counter()
        image = decode(
            content,
            max_bytes=self._max_bytes,
            max_pixels=max_pixels,
            detail=detail(preprocessing, is_exact=self._is_exact),
        )
        decoded_s = time.perf_counter()
        pixels = prepare(image.pixels, preprocessing, (image.width, image.height))
        done_s = time.perf_counter()
        return PreparedImage(
            image, pixels, int((decoded_s - started_s) * 1e6), int((done_s - decoded_s) * 1e6)
        )


def best_classes(
    probabilities: npt.NDArray[np.float32], labels: Sequence[pb.Label], top_k: int
) -> list[pb.Class]:
    """The `top_k` best classes, in descending order; equal scores by index."""
    return [
        pb.Class(label=labels[index].name, score=score, index=index, id=labels[index].id)
        for index, score in best_scores(probabilities, top_k)
    ]


def best_scores(probabilities: npt.NDArray[np.float32], top_k: int) -> Sequence[tuple[int, float]]:
    """Index and score. Few are sorted as Python's numbers; of many, those that can be the best."""
    n = len(probabilities)
    if n <= max(top_k, MANY_CLASSES):
        return sorted(enumerate(probabilities.tolist()), key=itemgetter(1), reverse=True)[:top_k]
    worst = np.partition(probabilities, n - top_k)[n - top_k]
    (candidates,) = np.nonzero(probabilities >= worst)
    scores = zip(candidates.tolist(), probabilities[candidates].tolist(), strict=True)
    return sorted(scores, key=itemgetter(1), reverse=True)[:top_k]
