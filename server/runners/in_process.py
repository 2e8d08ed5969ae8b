"""The runner of a laptop: ONNX Runtime in the gateway's own process, from Triton's repository.

It follows `config.pbtxt` where Triton would: `instance_group` (how many batches are computed at
once; KIND_CPU keeps a version off the GPU), `max_batch_size`, and `dynamic_batching` (see
`batcher`).

A graph may loop, and a share may hang. So nothing here is waited for without a limit: what does not
end in time is told to end, and what does not obey is abandoned, with its thread.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import onnxruntime as ort
from tritonclient.grpc import model_config_pb2

from server.errors import DeadlineExceeded, ModelNotReady
from server.runners.base import (
    MAX_LOAD_S,
    Fingerprint,
    Hung,
    Inference,
    LoadedModel,
    LoadFailed,
    RepositoryLost,
    parse_facts,
)
from server.runners.batcher import END_TIMEOUT_S, Batcher
from server.runners.daemon_threads import DaemonThreads
from server.runners.elastic_model import ElasticModel
from server.runners.onnx_session import Images, OnnxModel, open_onnx_model
from server.runners.version_files import (
    CONFIG_FILE,
    MODEL_FILE,
    check_files,
    list_folders,
    read_config,
    read_fingerprint,
    thread_count,
)

T = TypeVar("T")
Opened = tuple[model_config_pb2.ModelConfig, OnnxModel | ElasticModel, LoadedModel]

# ONNX Runtime's warnings are about its own choices: that shapes are computed on the CPU, for one.
ERRORS = 3
MAX_OPENING = 8  # versions at once: one that hangs holds up no other, and memory is bounded
FILES_TIMEOUT_S = 10.0  # for a look at the repository


class InProcessRunner:
    """A `Runner` in this process."""

    def __init__(
        self,
        repository_path: Path,
        *,
        load_timeout_s: float = MAX_LOAD_S,
        inference_threads: int = 1,
    ) -> None:
        self._repository_path = repository_path
        self._inference_threads = inference_threads
        self._load_timeout_s = load_timeout_s
        self._batchers: dict[str, Batcher] = {}
        self._models: dict[str, ElasticModel] = {}  # those on the CPU that may have threads
        self._loaded: dict[str, LoadedModel] = {}
        self._threads = DaemonThreads("model")
        self._opening = asyncio.Semaphore(MAX_OPENING)
        self._looking: asyncio.Future[Any] | None = None

    async def index(self) -> dict[str, bool]:
        names = await self._look(list_folders, self._repository_path)
        for model in self._models.values():
            model.resize(self._threads)
        return {name: name in self._loaded for name in names}

    async def fingerprint(self, name: str) -> Fingerprint:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FILES_TIMEOUT_S):
                return await self._threads.submit(read_fingerprint, self._repository_path / name)
        return None

    async def load(self, name: str) -> LoadedModel:
        if name not in self._loaded:
            async with self._opening:
                config, network, loaded = await self._open(self._repository_path / name)
            self._batchers[name] = Batcher(network, config, self._threads)
            self._loaded[name] = loaded
            if isinstance(network, ElasticModel):
                self._models[name] = network
        return self._loaded[name]

    async def unload(self, name: str) -> None:
        self._loaded.pop(name, None)
        self._models.pop(name, None)
        if batcher := self._batchers.pop(name, None):
            await batcher.close()

    async def infer(
        self,
        name: str,
        images: Images,
        timeout_s: float | None = None,
        outputs: Sequence[str] = (),
    ) -> Inference:
        if name not in self._batchers:
            raise ModelNotReady(f"{name} is not loaded")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._batchers[name].submit(images, outputs)
        except TimeoutError as error:
            raise DeadlineExceeded(f"no answer within {timeout_s:.3f} s") from error

    async def close(self) -> None:
        """What is still computed is told to end, and not waited for if it does not."""
        batchers = self._batchers.values()
        closing = [asyncio.ensure_future(batcher.close(finish_s=0)) for batcher in batchers]
        await asyncio.gather(*closing, return_exceptions=True)
        self._batchers.clear()
        self._loaded.clear()
        self._models.clear()

    async def _look(self, read: Callable[[Path], T], path: Path) -> T:
        """One look at a time, however long it hangs.

        Raises:
            RepositoryLost: it hangs.
        """
        if self._looking is None or self._looking.done():
            self._looking = self._threads.submit(read, path)
            await asyncio.wait([self._looking], timeout=FILES_TIMEOUT_S)
        if not self._looking.done():
            raise RepositoryLost("the model repository cannot be read: it does not answer")
        found: T = self._looking.result()
        return found

    async def _open(self, path: Path) -> Opened:
        """
        Raises:
            LoadFailed: a file is missing or broken, or takes too long.
            Hung: the same, and it cannot be ended.
        """
        options = ort.SessionOptions()
        opening = self._threads.submit(open_version, path, options, self._inference_threads)
        try:
            await asyncio.wait([opening], timeout=self._load_timeout_s)
            if opening.done():
                return opening.result()
            options.set_load_cancellation_flag(True)
            await asyncio.wait([opening], timeout=END_TIMEOUT_S)
        finally:
            is_ended = opening.done()
            opening.cancel()
        reason = f"{path.name} did not load within {self._load_timeout_s:g} s"
        if not is_ended:
            raise Hung(f"{reason}, and does not end")
        raise LoadFailed(reason)


def open_version(path: Path, options: ort.SessionOptions, inference_threads: int) -> Opened:
    """Reads a version's folder, off the event loop.

    Raises:
        LoadFailed: a file is missing or broken.
    """
    check_files(path)
    fingerprint = read_fingerprint(path)
    config = read_config(path / CONFIG_FILE)
    facts = parse_facts(config)
    set_options(options, 1)
    batch_size = max(1, config.max_batch_size)
    try:
        network = open_onnx_model(
            path / MODEL_FILE, options, batch_size, may_use_gpu=may_use_gpu(config)
        )
    except Exception as error:  # ONNX Runtime's errors share no base class
        reason = str(error).replace(str(path), path.name).splitlines()[0]
        raise LoadFailed(f"{path.name}/{MODEL_FILE} cannot be loaded: {reason}") from error
    check_contract(network.any_session, path.name, config)
    loaded = LoadedModel(facts, "onnxruntime", network.device, batch_size)
    n_threads = thread_count(config) or inference_threads
    if network.device == "gpu" or n_threads == 1:
        return config, network, loaded
    return config, ElasticModel(network, partial(reopen, path, fingerprint), n_threads), loaded


def set_options(options: ort.SessionOptions, n_threads: int) -> None:
    # Idle threads that spin would take the cores from decoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = n_threads
    options.log_severity_level = ERRORS


def reopen(path: Path, fingerprint: Fingerprint, n_threads: int) -> OnnxModel:
    """
    Raises:
        LoadFailed: its files are not those that were proven.
    """
    options = ort.SessionOptions()
    set_options(options, n_threads)
    network = open_onnx_model(path / MODEL_FILE, options, 1, may_use_gpu=False)
    if read_fingerprint(path) != fingerprint:
        raise LoadFailed(f"the files of {path.name} have changed")
    return network


def check_contract(
    session: ort.InferenceSession, name: str, config: model_config_pb2.ModelConfig
) -> None:
    inputs = {node.name: node.type for node in session.get_inputs()}
    outputs = {node.name for node in session.get_outputs()}
    expected = {"probabilities", "batch_size", *(output.name for output in config.output)}
    if inputs != {"image": "tensor(uint8)"} or not expected <= outputs:
        raise LoadFailed(
            f"{name}/{MODEL_FILE} has inputs {inputs} and outputs {sorted(outputs)}; expected "
            f"the input image, of uint8, and the outputs {', '.join(sorted(expected))}"
        )


def may_use_gpu(config: model_config_pb2.ModelConfig) -> bool:
    kinds = {group.kind for group in config.instance_group}
    return kinds != {model_config_pb2.ModelInstanceGroup.KIND_CPU}
