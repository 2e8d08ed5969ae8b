"""The runner of a laptop: ONNX Runtime in the gateway's own process, from Triton's repository.

It honours what Triton would of `config.pbtxt`: `instance_group` (how many batches are computed at
once; KIND_CPU keeps a version off the GPU), `max_batch_size`, and `dynamic_batching` as "take what
waits": an instance that becomes free takes the oldest waiting images, up to the maximum, and never
waits for more.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from server.errors import DeadlineExceeded, InferenceFailed, ModelNotReady
from server.folder_names import FOLDER_NAME
from server.runners.base import Inference, LoadedModel, LoadFailed, facts_of
from server.runners.onnx_session import Images, OnnxModel, open_onnx_model

CONFIG_FILE = "config.pbtxt"
MODEL_FILE = "1/model.onnx"
# ONNX Runtime's warnings are of its own choices: that shapes are computed on the CPU, for one.
ERRORS = 3


class InProcessRunner:
    def __init__(self, repository_path: Path) -> None:
        self._repository_path = repository_path
        self._batchers: dict[str, Batcher] = {}
        self._loaded: dict[str, LoadedModel] = {}

    async def index(self) -> dict[str, bool]:
        names = await asyncio.to_thread(list_folders, self._repository_path)
        return {name: name in self._loaded for name in names}

    async def load(self, name: str) -> LoadedModel:
        if name not in self._loaded:
            path = self._repository_path / name
            config, network = await asyncio.to_thread(open_version, path)
            self._batchers[name] = Batcher(network, config)
            self._loaded[name] = LoadedModel(facts_of(config), "onnxruntime", network.device)
        return self._loaded[name]

    async def unload(self, name: str) -> None:
        self._loaded.pop(name, None)
        if batcher := self._batchers.pop(name, None):
            await batcher.close()

    async def infer(self, name: str, images: Images, timeout_s: float | None = None) -> Inference:
        if name not in self._batchers:
            raise ModelNotReady(f"{name} is not loaded")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._batchers[name].submit(images)
        except TimeoutError as error:
            raise DeadlineExceeded(f"no answer within {timeout_s:.3f} s") from error

    async def close(self) -> None:
        for name in list(self._batchers):
            await self.unload(name)


def list_folders(repository_path: Path) -> list[str]:
    """Names of the versions in the repository; other folders and files are none of ours."""
    if not repository_path.is_dir():
        return []
    return [path.name for path in repository_path.iterdir() if FOLDER_NAME.fullmatch(path.name)]


def open_version(path: Path) -> tuple[model_config_pb2.ModelConfig, OnnxModel]:
    """Reads a version's folder, off the event loop.

    Raises:
        LoadFailed: a file is missing or broken.
    """
    config = read_config(path / CONFIG_FILE)
    options = ort.SessionOptions()
    # Idle threads that spin would take the cores from decoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = thread_count(config)
    options.log_severity_level = ERRORS
    try:
        network = open_onnx_model(
            path / MODEL_FILE,
            options,
            max(1, config.max_batch_size),
            may_use_gpu=may_use_gpu(config),
        )
    except Exception as error:  # ONNX Runtime's errors share no base class
        reason = str(error).replace(str(path), path.name).splitlines()[0]
        raise LoadFailed(f"{path.name}/{MODEL_FILE} cannot be loaded: {reason}") from error
    check_contract(network.any_session, path.name)
    return config, network


def read_config(config_path: Path) -> model_config_pb2.ModelConfig:
    shown = f"{config_path.parent.name}/{config_path.name}"
    try:
        text = config_path.read_text(encoding="utf-8")
        return text_format.Parse(text, model_config_pb2.ModelConfig())
    except OSError as error:
        raise LoadFailed(f"{shown} cannot be read: {error.strerror}") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise LoadFailed(f"{shown} is broken: {error}") from error


def thread_count(config: model_config_pb2.ModelConfig) -> int:
    """Threads of one computation, a parameter of Triton's onnxruntime backend; 0: one a core."""
    text = config.parameters["intra_op_thread_count"].string_value or "0"
    if not text.isdecimal():
        raise LoadFailed(
            f"intra_op_thread_count is {text!r}, must be a whole number, 0 for all cores"
        )
    return int(text)


def check_contract(session: ort.InferenceSession, name: str) -> None:
    inputs = {node.name: node.type for node in session.get_inputs()}
    outputs = {node.name for node in session.get_outputs()}
    if inputs != {"image": "tensor(uint8)"} or not {"probabilities", "batch_size"} <= outputs:
        raise LoadFailed(
            f"{name}/{MODEL_FILE} takes {inputs} and gives {sorted(outputs)}; a model of this "
            "gateway takes a uint8 image and gives probabilities and batch_size"
        )


def may_use_gpu(config: model_config_pb2.ModelConfig) -> bool:
    kinds = {group.kind for group in config.instance_group}
    return kinds != {model_config_pb2.ModelInstanceGroup.KIND_CPU}


@dataclass
class Waiting:
    """Images of one request, and where its answer goes."""

    images: Images
    answer: asyncio.Future[Inference]
    since_s: float = field(default_factory=time.perf_counter)


class Batcher:
    """Computes the images of one version, those of several requests together."""

    def __init__(self, network: OnnxModel, config: model_config_pb2.ModelConfig) -> None:
        self._network = network
        self._max_batch_size = max(1, config.max_batch_size)
        self._shares_batches = config.HasField("dynamic_batching")
        self._idle_instances = sum(group.count or 1 for group in config.instance_group) or 1
        self._threads = ThreadPoolExecutor(self._idle_instances, thread_name_prefix="infer")
        self._waiting: deque[Waiting] = deque()
        self._running: set[asyncio.Task[None]] = set()

    async def submit(self, images: Images) -> Inference:
        if len(images) > self._max_batch_size:
            raise InferenceFailed(
                f"{len(images)} images at once, the model takes at most {self._max_batch_size}"
            )
        request = Waiting(images, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        # Not at once: what is submitted in the same turn of the event loop goes along.
        asyncio.get_running_loop().call_soon(self._start_batches)
        return await request.answer

    async def close(self) -> None:
        """Finishes what waits and runs; the runner has forgotten the name, so nothing new comes."""
        while self._running:
            await asyncio.gather(*self._running)
        self._threads.shutdown()

    def _start_batches(self) -> None:
        while self._idle_instances and (batch := self._take()):
            self._idle_instances -= 1
            task = asyncio.create_task(self._compute(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _take(self) -> list[Waiting]:
        """The oldest requests that fit in one batch; what nobody awaits any more is dropped."""
        batch: list[Waiting] = []
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

    async def _compute(self, batch: Sequence[Waiting]) -> None:
        try:
            await self._answer_each(batch)
        finally:
            self._idle_instances += 1
            self._start_batches()

    async def _answer_each(self, batch: Sequence[Waiting]) -> None:
        """Where requests fail together, each has its own try: the fault may be one image's."""
        loop = asyncio.get_running_loop()
        started_s = time.perf_counter()
        try:
            probabilities = await loop.run_in_executor(
                self._threads, self._run, [request.images for request in batch]
            )
        except Exception as error:
            if len(batch) > 1:
                for request in batch:
                    await self._answer_each([request])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(InferenceFailed(f"the model failed: {error}"))
        else:
            self._answer(batch, probabilities, started_s)

    def _run(self, images: list[Images]) -> npt.NDArray[np.float32]:
        together = images[0] if len(images) == 1 else np.concatenate(images)
        return self._network.probabilities(together)

    def _answer(
        self, batch: Sequence[Waiting], probabilities: npt.NDArray[np.float32], started_s: float
    ) -> None:
        compute_us = int((time.perf_counter() - started_s) * 1e6)
        first = 0
        for request in batch:
            last = first + len(request.images)
            queue_us = int((started_s - request.since_s) * 1e6)
            if not request.answer.done():
                request.answer.set_result(
                    Inference(probabilities[first:last], len(probabilities), queue_us, compute_us)
                )
            first = last
