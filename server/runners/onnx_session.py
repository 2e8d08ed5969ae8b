"""A version's graph in ONNX Runtime: on the GPU where this package can use one, else on the CPU.

It is the first GPU that the driver shows (CUDA_VISIBLE_DEVICES), in the package onnxruntime-gpu.
There, cuDNN plans every convolution again whenever the batch has another size than the one before,
which takes as long as 35 to 170 batches (docs/performance.md). So only a few sizes go through a
GPU, each in a session of its own: 1, 8, 64, … and the largest batch. Others are padded.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from server.folder_names import is_utf8

logger = logging.getLogger(__name__)

Images = npt.NDArray[np.uint8]  # N×H×W×C

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# fp32 means fp32: TF32 would keep 10 bits of the mantissa. The default search, EXHAUSTIVE, takes
# several times as long for a size that is new, and finds nothing faster (docs/performance.md).
CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
ANY_SIZE = 0
FATAL = 4  # ONNX Runtime's level of logging


@dataclass(frozen=True)
class OnnxModel:
    """A graph opened on one device."""

    device: str  # "cpu" or "gpu"
    sessions: Mapping[int, ort.InferenceSession]  # by batch size, ascending

    @property
    def any_session(self) -> ort.InferenceSession:
        return next(iter(self.sessions.values()))

    def run(
        self, images: Images, names: Sequence[str], options: ort.RunOptions | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """The outputs of these names, N rows each; N is at most the batch size that the model was
        opened with. Others are not computed. To end it early, set `terminate` of the options.
        """
        options = options or ort.RunOptions()
        options.only_execute_path_to_fetches = True
        options.log_severity_level = FATAL  # errors are raised, and need not be printed too
        count = len(images)
        size = next(size for size in self.sessions if size == ANY_SIZE or size >= count)
        feed = {"image": pad_batch(images, size)}
        outputs = self.sessions[size].run(names, feed, options)
        return {name: output[:count] for name, output in zip(names, outputs, strict=True)}

    def probabilities(self, images: Images) -> npt.NDArray[np.float32]:
        """N×K."""
        return self.run(images, ["probabilities"])["probabilities"]


def pad_batch(images: Images, size: int) -> Images:
    """The images, followed by as many black ones as make `size`."""
    if len(images) >= size:
        return images
    padded = np.zeros((size, *images.shape[1:]), np.uint8)
    padded[: len(images)] = images
    return padded


def open_onnx_model(
    path: Path, options: ort.SessionOptions, max_batch_size: int, *, may_use_gpu: bool
) -> OnnxModel:
    """If CUDA fails, the CPU takes its place, and a warning is logged.

    CUDA is the only provider for GPUs that is used. TensorRT's is listed too, but would compile
    each graph while it is loaded, with libraries that do not come with the package.

    Raises:
        Exception: ONNX Runtime's errors share no base class.
    """
    if not may_use_gpu or CUDA not in ort.get_available_providers():
        return on_cpu(path, options)
    preload_cuda()
    try:
        return on_gpu(path, options, max_batch_size)
    except Exception as error:
        network = on_cpu(path, options)
        logger.warning(
            "%s runs on the CPU, because CUDA failed: %s", path, str(error).splitlines()[0]
        )
        return network


def on_cpu(path: Path, options: ort.SessionOptions) -> OnnxModel:
    session = ort.InferenceSession(to_model(path), options, providers=[CPU])
    return OnnxModel("cpu", {ANY_SIZE: session})


def to_model(path: Path) -> Path | bytes:
    """What ONNX Runtime opens: the file, or its content."""
    return path if is_utf8(path) else path.read_bytes()


def on_gpu(path: Path, options: ort.SessionOptions, max_batch_size: int) -> OnnxModel:
    """Runs each session once, so that convolutions are planned before the first request."""
    sizes = gpu_batch_sizes(max_batch_size)
    network = OnnxModel("gpu", {size: cuda_session(path, options) for size in sizes})
    # It logs an error for each fusion that cuDNN lacks, and goes on; real failures are raised.
    ort.set_default_logger_severity(FATAL)
    for size, session in network.sessions.items():
        network.probabilities(np.zeros((size, *session.get_inputs()[0].shape[1:]), np.uint8))
    return network


def gpu_batch_sizes(largest: int) -> list[int]:
    """So few, since each session stores the weights; so many, since a padded batch takes as long as
    a full one.
    """
    powers = itertools.takewhile(lambda size: size < largest, (8**n for n in itertools.count()))
    return [*powers, largest]


def cuda_session(path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    # Otherwise ONNX Runtime falls back to the CPU by itself, and reports that on stdout only.
    session = ort.InferenceSession(
        to_model(path), options, providers=[(CUDA, CUDA_OPTIONS), CPU], enable_fallback=0
    )
    if CUDA not in session.get_providers():
        raise RuntimeError("its libraries, the driver or the GPU are missing; see stderr")
    return session


@functools.cache
def preload_cuda() -> None:
    """Loads the CUDA libraries installed by pip, which the system's loader would not find."""
    output = io.StringIO()  # lists what is missing
    with contextlib.redirect_stdout(output):
        ort.preload_dlls()
    for line in output.getvalue().splitlines():
        logger.warning("%s", line)
