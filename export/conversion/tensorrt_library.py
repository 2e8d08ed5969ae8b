"""The libraries TensorRT and TensorRT-RTX: whether they can build here, their version, their log.

Neither library is imported before it is needed. The API often fails in silence; only the log has
the reason, so every error message quotes it.
"""

from __future__ import annotations

import re
from typing import Any

from convoy.v1 import classifier_pb2 as pb
from export.conversion.cuda_driver import find_gpu
from export.conversion.engine_header import Library
from export.errors import EngineError

MIN_VERSION = (10, 12)  # the first TensorRT with the whole API that is used here
MAX_REASON_CHARACTERS = 300
REMEDY = (
    "A plan is built on the kind of GPU that serves it, in the TensorRT container of the same "
    "release as the Triton image: see docs/tensorrt.md."
)


def load_library(library: Library) -> Any:
    """Returns the library's module.

    Raises:
        EngineError: it cannot build here; the message says why.
    """
    return _load_tensorrt() if library == "tensorrt" else _load_rtx()


def _load_tensorrt() -> Any:
    try:
        import tensorrt as trt
    except ModuleNotFoundError as error:
        raise EngineError(f"TensorRT is not installed. {REMEDY}") from error
    except (ImportError, OSError) as error:
        raise EngineError(f"TensorRT cannot be loaded: {error}. {REMEDY}") from error
    if tuple(int(part) for part in trt.__version__.split(".")[:2]) < MIN_VERSION:
        raise EngineError(f"TensorRT {trt.__version__} is older than 10.12. {REMEDY}")
    log = create_log(trt)
    try:
        trt.Builder(log)
    except TypeError as error:  # for a null pointer: the API's only sign
        raise EngineError(
            f"TensorRT {trt.__version__} found no usable GPU{log.reason()}. {REMEDY}"
        ) from error
    return trt


def _load_rtx() -> Any:
    try:
        import tensorrt_rtx as trt
    except (ImportError, OSError) as error:
        raise EngineError(
            f"TensorRT-RTX cannot be loaded: {error}. `make setup-export` installs it on Linux "
            "x86-64, the only platform for which it is available."
        ) from error
    return trt


def describe_target(trt: Any, library: Library) -> pb.Engine:
    """Returns the library and its version; for a plan also CUDA and the GPU."""
    numbers = trt.__version__.split(".")[:4]  # as in the engine's header, without ".post1"
    target = pb.Engine(library=library, version=".".join(numbers))
    if library == "tensorrt":
        gpu = find_gpu()
        target.cuda, target.gpu = gpu.cuda, gpu.name
        target.compute_capability = gpu.compute_capability
    return target


def target_key(library: Library) -> str:
    """Returns the library, version and GPU for which an engine would be built, as a cache key.

    Raises:
        EngineError: no engine can be built here; the message says why.
    """
    target = describe_target(load_library(library), library)
    words = (target.library, target.version, target.cuda, target.gpu, target.compute_capability)
    return " ".join(filter(None, words))


def explain_missing_plan_support() -> str | None:
    """Returns why no plan can be built here; None where TensorRT and a usable GPU are available."""
    try:
        load_library("tensorrt")
    except EngineError as error:
        return str(error).removesuffix(f" {REMEDY}")
    return None


def create_log(trt: Any) -> Any:
    """Returns a logger of the library; its `reason()` is ": MESSAGE", or empty."""

    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps the errors: when something fails, only they have the reason."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

        def reason(self) -> str:
            return f": {shorten(self.errors[0])}" if self.errors else ""

    return Log()


def shorten(message: str) -> str:
    """Returns the informative part of TensorRT's message, without its file names and codes.

    "ITensor::getDimensions: Error Code 4: API Usage Error (turn: first input has type UInt8 but
    must have type Float. In checkType at /_src/optimizer/common/nodeBase.cpp:456)"
    """
    lines = [line for line in message.splitlines() if not line.startswith("Invalid Node")]
    reason = lines[0] if lines else message
    reason = re.sub(r"\bIn \w+ at [\w/.]+:\d+\.?", "", reason)
    if wrapped := re.search(r"Error Code \d+: [\w ]+\((.*)\)$", reason):
        reason = wrapped[1]
    reason = re.sub(r"^Assertion failed: .*?: (?=[A-Z])", "", reason).strip(" .")
    return reason if len(reason) <= MAX_REASON_CHARACTERS else f"{reason[:MAX_REASON_CHARACTERS]}…"
