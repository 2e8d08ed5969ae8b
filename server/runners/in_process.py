"""The runner of a laptop: ONNX Runtime in the gateway's own process, from Triton's repository.

It follows `config.pbtxt` where Triton would: `instance_group` (how many batches are computed at
once; KIND_CPU keeps a version off the GPU), `max_batch_size`, and `dynamic_batching` (see
`batcher`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from server.errors import DeadlineExceeded, ModelNotReady
from server.folder_names import FOLDER_NAME, TRACE
from server.runners.base import (
    Fingerprint,
    Inference,
    LoadedModel,
    LoadFailed,
    RepositoryEmpty,
    RepositoryLost,
    parse_facts,
)
from server.runners.batcher import Batcher
from server.runners.onnx_session import Images, OnnxModel, open_onnx_model

CONFIG_FILE = "config.pbtxt"
MODEL_FILE, PLAN_FILE = "1/model.onnx", "1/model.plan"
# ONNX Runtime's warnings are about its own choices: that shapes are computed on the CPU, for one.
ERRORS = 3


class InProcessRunner:
    """A `Runner` in this process."""

    def __init__(self, repository_path: Path) -> None:
        self._repository_path = repository_path
        self._batchers: dict[str, Batcher] = {}
        self._loaded: dict[str, LoadedModel] = {}

    async def index(self) -> dict[str, bool]:
        names = await asyncio.to_thread(list_folders, self._repository_path)
        return {name: name in self._loaded for name in names}

    async def fingerprint(self, name: str) -> Fingerprint:
        return await asyncio.to_thread(read_fingerprint, self._repository_path / name)

    async def load(self, name: str) -> LoadedModel:
        if name not in self._loaded:
            path = self._repository_path / name
            config, network = await asyncio.to_thread(open_version, path)
            self._batchers[name] = Batcher(network, config)
            self._loaded[name] = LoadedModel(
                parse_facts(config), "onnxruntime", network.device, max(1, config.max_batch_size)
            )
        return self._loaded[name]

    async def unload(self, name: str) -> None:
        self._loaded.pop(name, None)
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
        for name in list(self._batchers):
            await self.unload(name)


def list_folders(repository_path: Path) -> list[str]:
    """The names of the versions in the repository; other folders and files are ignored.

    Raises:
        RepositoryLost: as in `Runner.index`.
    """
    try:
        names = [path.name for path in repository_path.iterdir()]
    except OSError as error:
        raise RepositoryLost(
            f"the model repository cannot be read: {error.strerror or error}"
        ) from error
    if not any(map(TRACE.fullmatch, names)):
        raise RepositoryEmpty("the model repository is empty")
    return [name for name in names if FOLDER_NAME.fullmatch(name)]


def read_fingerprint(path: Path) -> Fingerprint:
    """Of the files that a runner reads; one that is missing has none."""
    found = []
    for file in (CONFIG_FILE, MODEL_FILE, PLAN_FILE):
        with contextlib.suppress(OSError):
            status = (path / file).stat()
            found.append((file, status.st_size, status.st_mtime_ns))
    return tuple(found)


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
    check_contract(network.any_session, path.name, config)
    return config, network


def read_config(config_path: Path) -> model_config_pb2.ModelConfig:
    shown = f"{config_path.parent.name}/{config_path.name}"
    try:
        text = config_path.read_text(encoding="utf-8")
        return text_format.Parse(text, model_config_pb2.ModelConfig())
    except OSError as error:
        raise LoadFailed(f"{shown} cannot be read: {error.strerror}") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise LoadFailed(f"{shown} is invalid: {error}") from error


def thread_count(config: model_config_pb2.ModelConfig) -> int:
    """Threads per computation, a parameter of Triton's onnxruntime backend; 0: one per core."""
    text = config.parameters["intra_op_thread_count"].string_value or "0"
    if not text.isdecimal():
        raise LoadFailed(
            f"intra_op_thread_count is {text!r}, must be a whole number, 0 for all cores"
        )
    return int(text)


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
