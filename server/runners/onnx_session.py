"""A version's graph in ONNX Runtime: on the GPU where this package can use one, else on the CPU.

It is the first GPU that the driver shows (CUDA_VISIBLE_DEVICES), in the package onnxruntime-gpu.
On it, every convolution is planned anew whenever the batch has another size than the one before,
which takes as long as 35 to 170 batches (docs/performance.md). So only two sizes go through a GPU,
one image and the largest batch, each in a session of its own; a batch between is filled up.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

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
    """A graph that is open on one device."""

    device: str  # "cpu" or "gpu"
    sessions: Mapping[int, ort.InferenceSession]  # by the batch size that each is for, rising

    @property
    def any_session(self) -> ort.InferenceSession:
        return next(iter(self.sessions.values()))

    def probabilities(self, images: Images) -> npt.NDArray[np.float32]:
        """N×K, of at most as many images as the network was opened for."""
        count = len(images)
        size = next(size for size in self.sessions if size == ANY_SIZE or size >= count)
        (found,) = self.sessions[size].run(["probabilities"], {"image": filled_up(images, size)})
        answers: npt.NDArray[np.float32] = found[:count]
        return answers


def filled_up(images: Images, size: int) -> Images:
    if len(images) >= size:
        return images
    whole = np.zeros((size, *images.shape[1:]), np.uint8)
    whole[: len(images)] = images
    return whole


def open_onnx_model(
    path: Path, options: ort.SessionOptions, max_batch_size: int, *, may_use_gpu: bool
) -> OnnxModel:
    """Where CUDA fails, the CPU takes its place, and a warning says why.

    Of the providers for GPUs CUDA alone is asked. TensorRT's is listed as well: it would compile
    each graph while it is loaded, with libraries that do not come with the package.

    Raises:
        Exception: of ONNX Runtime, whose errors share no base class.
    """
    if not may_use_gpu or CUDA not in ort.get_available_providers():
        return on_cpu(path, options)
    preload_cuda()
    try:
        return on_gpu(path, options, max_batch_size)
    except Exception as error:
        network = on_cpu(path, options)
        logger.warning(
            "%s runs on the CPU, since CUDA failed: %s", path, str(error).splitlines()[0]
        )
        return network


def on_cpu(path: Path, options: ort.SessionOptions) -> OnnxModel:
    return OnnxModel("cpu", {ANY_SIZE: ort.InferenceSession(path, options, providers=[CPU])})


def on_gpu(path: Path, options: ort.SessionOptions, max_batch_size: int) -> OnnxModel:
    """With the convolutions planned, so that the first request waits for nothing."""
    sizes = sorted({1, max_batch_size})
    network = OnnxModel("gpu", {size: cuda_session(path, options) for size in sizes})
    # It reports as an error each fusion that cuDNN lacks, and goes on without; failures are raised.
    ort.set_default_logger_severity(FATAL)
    for size, session in network.sessions.items():
        network.probabilities(np.zeros((size, *session.get_inputs()[0].shape[1:]), np.uint8))
    return network


def cuda_session(path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    # Unless forbidden, ONNX Runtime falls back to the CPU by itself, and tells stdout alone.
    session = ort.InferenceSession(
        path, options, providers=[(CUDA, CUDA_OPTIONS), CPU], enable_fallback=0
    )
    if CUDA not in session.get_providers():
        raise RuntimeError("its libraries, the driver or the GPU are missing; stderr says more")
    return session


@functools.cache
def preload_cuda() -> None:
    """Loads the CUDA libraries that pip installed, which the system's loader would not find."""
    said = io.StringIO()  # of what is missing
    with contextlib.redirect_stdout(said):
        ort.preload_dlls()
    for line in said.getvalue().splitlines():
        logger.warning("%s", line)
