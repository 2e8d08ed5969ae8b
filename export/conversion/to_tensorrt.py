"""ONNX to an engine: a plan of TensorRT, which Triton serves, or an engine of TensorRT-RTX.

The only module that imports either library, and only when it is asked to build. They share an API,
and one way through it serves TensorRT 10.12 and later, 11, and RTX:

- networks are strongly typed: the precision is the graph's own, and no builder flag changes it;
- a plan is built on the GPU that is here, for its kind alone; an RTX engine ahead of time, without
  a GPU, for every kind from Ampere on;
- the API fails in silence: a batch range that is none, a name that is no input, a build that
  returns nothing. Each is looked for here, and the message has what the library logged.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convoy.v1 import classifier_pb2 as pb
from export.catalog import BATCH_SIZE, INPUT, PROBABILITIES
from export.conversion.cuda_driver import on_gpu, this_gpu
from export.conversion.engine_header import Library
from export.errors import EngineError
from export.progress import SILENT, Reporter

if TYPE_CHECKING:
    from export.samples.images import Answer, Pixels, Probabilities

OLDEST = (10, 12)  # the first TensorRT that has all of this
OPTIMIZATION_LEVELS = range(6)  # from built fast to runs fast; the API clips what lies outside
# Not Turing (7.5): RTX has no fp32 matrix product for it, which every network here ends with.
NO_TARGETS = ("NONE", "CURRENT", "SM75")
INPUTS_AND_OUTPUTS = (
    f"{INPUT} UINT8 any×fixed×fixed×fixed",
    f"{PROBABILITIES} FLOAT any×fixed",
    f"{BATCH_SIZE} INT32 any×fixed",
)
DEFAULT_STREAM = 0
REASON_CHARACTERS = 300
REMEDY = (
    "A plan is built on the kind of GPU that serves it, in the TensorRT container of the same "
    "release as the Triton image: see docs/tensorrt.md."
)


@dataclass(frozen=True)
class Profile:
    """Images at once: least, the number that the engine is fastest for, most."""

    min_batch: int
    opt_batch: int
    max_batch: int

    def __post_init__(self) -> None:
        if not 1 <= self.min_batch <= self.opt_batch <= self.max_batch:
            raise EngineError(
                f"No engine can take {self.min_batch} to {self.max_batch} images at once and be "
                f"fastest for {self.opt_batch}: choose 1 ≤ least ≤ fastest ≤ most."
            )


def build_engine(
    onnx_path: Path,
    engine_path: Path,
    profile: Profile,
    library: Library,
    *,
    optimization_level: int | None = None,
    timing_cache_path: Path | None = None,
    reporter: Reporter = SILENT,
) -> pb.Engine:
    """Writes the engine of the graph, whole or not at all, and says what it is.

    `optimization_level` is 0, built fast, to 5, runs fast; the library's own choice unless given.
    The timing cache makes the next build for the same kind of GPU quicker; RTX has none. `reporter`
    is called from another thread. Ctrl-C ends the build at its next step.

    Raises:
        EngineError: the library is not here, or cannot build the graph; the message says why.
    """
    trt = _load(library)
    facts = _target(trt, library)
    # Both must outlive the objects of TensorRT that know them, which _build makes and frees.
    log, monitor = _log(trt), _monitor(trt, reporter)
    cache_path = timing_cache_path if library == "tensorrt" else None
    work = functools.partial(
        _build, trt, log, monitor, onnx_path, profile, optimization_level, cache_path
    )
    # Beside this thread, which hears of Ctrl-C only while it runs Python.
    with ThreadPoolExecutor(1, "tensorrt") as beside:
        try:
            engine = beside.submit(work).result()
        except BaseException:
            monitor.cancelled.set()
            raise
    _write(engine_path, engine)
    facts.MergeFrom(
        pb.Engine(
            sha256=hashlib.sha256(engine).hexdigest(),
            min_batch=profile.min_batch,
            opt_batch=profile.opt_batch,
            max_batch=profile.max_batch,
        )
    )
    return facts


def engine_answer(plan_path: Path) -> Answer:
    """The plan in TensorRT on the GPU, which also has to tell the size of each batch.

    Raises:
        EngineError: TensorRT cannot load it, or cannot run it.
    """
    trt = _load("tensorrt")
    log = _log(trt)
    engine = trt.Runtime(log).deserialize_cuda_engine(plan_path.read_bytes())
    if engine is None:
        raise EngineError(f"TensorRT cannot load {plan_path}{log.because()}.")
    context = engine.create_execution_context()
    if context is None:
        raise EngineError(f"TensorRT cannot run {plan_path}{log.because()}.")
    classes = engine.get_tensor_shape(PROBABILITIES)[1]

    def answer(images: Pixels) -> Probabilities:
        count = len(images)
        tensors = {
            INPUT: np.ascontiguousarray(images),
            PROBABILITIES: np.zeros((count, classes), np.float32),
            BATCH_SIZE: np.zeros((count, 1), np.int32),
        }
        with on_gpu(*tensors.values()) as addresses:
            ready = context.set_input_shape(INPUT, images.shape) and all(
                context.set_tensor_address(name, address)
                for name, address in zip(tensors, addresses, strict=True)
            )
            if not (ready and context.execute_async_v3(DEFAULT_STREAM)):
                raise EngineError(f"TensorRT cannot run {count} images at once{log.because()}.")
        if (tensors[BATCH_SIZE] != count).any():
            raise EngineError(
                f"{plan_path} answers {count} images with batch_size "
                f"{tensors[BATCH_SIZE].tolist()}: the graph took the batch axis for a constant."
            )
        return tensors[PROBABILITIES]

    return answer


def target_of(library: Library) -> str:
    """What an engine would be built by, and for: where this differs, it would be another engine.

    Raises:
        EngineError: none can be built here; the message says why.
    """
    target = _target(_load(library), library)
    words = (target.library, target.version, target.cuda, target.gpu, target.compute_capability)
    return " ".join(filter(None, words))


def why_no_plan() -> str | None:
    """The reason why no plan can be built here; None where TensorRT and a GPU for it are."""
    try:
        _load("tensorrt")
    except EngineError as error:
        return str(error).removesuffix(f" {REMEDY}")
    return None


# ------------------------------------------------------------------------------ the library


def _load(library: Library) -> Any:
    """The module, once it is sure that it can build here."""
    return _load_tensorrt() if library == "tensorrt" else _load_rtx()


def _load_tensorrt() -> Any:
    try:
        import tensorrt as trt
    except ModuleNotFoundError as error:
        raise EngineError(f"TensorRT is not installed. {REMEDY}") from error
    except (ImportError, OSError) as error:
        raise EngineError(f"TensorRT cannot be loaded: {error}. {REMEDY}") from error
    if tuple(int(part) for part in trt.__version__.split(".")[:2]) < OLDEST:
        raise EngineError(f"TensorRT {trt.__version__} is older than 10.12. {REMEDY}")
    log = _log(trt)
    try:
        trt.Builder(log)
    except TypeError as error:  # a null pointer: the only sign that the API gives
        raise EngineError(
            f"TensorRT {trt.__version__} found no usable GPU{log.because()}. {REMEDY}"
        ) from error
    return trt


def _load_rtx() -> Any:
    try:
        import tensorrt_rtx as trt
    except (ImportError, OSError) as error:
        raise EngineError(
            f"TensorRT-RTX cannot be loaded: {error}. `make setup-export` installs it on Linux "
            "x86-64; it is to be had for no other."
        ) from error
    return trt


def _target(trt: Any, library: Library) -> pb.Engine:
    numbers = trt.__version__.split(".")[:4]  # as in the engine's header: without ".post1"
    target = pb.Engine(library=library, version=".".join(numbers))
    if library == "tensorrt":
        gpu = this_gpu()
        target.cuda, target.gpu = gpu.cuda, gpu.name
        target.compute_capability = gpu.compute_capability
    return target


def _log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps the errors: where something fails, only they have the reason."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

        def because(self) -> str:
            return f": {_short(self.errors[0])}" if self.errors else ""

    return Log()


def _monitor(trt: Any, reporter: Reporter) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Passes on how far each phase is, one within the other; and ends a build."""

        def __init__(self) -> None:
            super().__init__()
            self.cancelled = threading.Event()
            self._totals: dict[str, int] = {}
            self._lock = threading.Lock()  # TensorRT may call from several threads

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            with self._lock:
                self._totals[phase] = steps
                reporter.progress(phase, 0, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            with self._lock:
                reporter.progress(phase, step + 1, self._totals[phase])
            return not self.cancelled.is_set()

        def phase_finish(self, phase: str) -> None:  # which may be before its last step
            with self._lock:
                total = self._totals.pop(phase)
                reporter.progress(phase, total, total)

    return Monitor()


def _short(message: str) -> str:
    """The telling part of what TensorRT says, which is wrapped in its own file names and codes.

    "ITensor::getDimensions: Error Code 4: API Usage Error (turn: first input has type UInt8 but
    must have type Float. In checkType at /_src/optimizer/common/nodeBase.cpp:456)"
    """
    lines = [line for line in message.splitlines() if not line.startswith("Invalid Node")]
    telling = lines[0] if lines else message
    telling = re.sub(r"\bIn \w+ at [\w/.]+:\d+\.?", "", telling)
    if wrapped := re.search(r"Error Code \d+: [\w ]+\((.*)\)$", telling):
        telling = wrapped[1]
    telling = re.sub(r"^Assertion failed: .*?: (?=[A-Z])", "", telling).strip(" .")
    return telling if len(telling) <= REASON_CHARACTERS else f"{telling[:REASON_CHARACTERS]}…"


# ------------------------------------------------------------------------------ the build


def _build(
    trt: Any,
    log: Any,
    monitor: Any,
    onnx_path: Path,
    profile: Profile,
    optimization_level: int | None,
    timing_cache_path: Path | None,
) -> Any:
    """The engine, in memory that belongs to TensorRT: a VGG's would be 0.6 GB to copy."""
    builder = trt.Builder(log)
    network = _parse(trt, log, builder, onnx_path)
    config = builder.create_builder_config()
    config.progress_monitor = monitor
    # Otherwise fp32 would mean TF32, of 10 bits, and no proof against ONNX Runtime could be tight.
    config.clear_flag(trt.BuilderFlag.TF32)
    if optimization_level is not None:
        _choose_level(config, optimization_level)
    if hasattr(trt, "ComputeCapability"):  # RTX
        _choose_targets(trt, config, log)
    _choose_batches(builder, config, network.get_input(0), profile, log)
    cache = _timing_cache(config, timing_cache_path, log) if timing_cache_path else None
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise EngineError(f"TensorRT cannot build {onnx_path}{log.because()}.")
    if timing_cache_path and cache:
        _write(timing_cache_path, cache.serialize())
    return engine


def _parse(trt: Any, log: Any, builder: Any, onnx_path: Path) -> Any:
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(onnx_path)):
        raise EngineError(f"TensorRT cannot read {onnx_path}{_parsers_reason(parser, log)}.")
    _check(network, onnx_path)
    return network


def _parsers_reason(parser: Any, log: Any) -> str:
    if not parser.num_errors:
        return str(log.because())
    error = parser.get_error(0)
    if not error.node_operator():
        return f": {_short(error.desc())}"
    node = " ".join(filter(None, ("node", error.node_name(), f"({error.node_operator()})")))
    return f": {node}, {_short(error.desc())}"


def _check(network: Any, onnx_path: Path) -> None:
    """A file that is no ONNX at all parses without an error, into a network that has no input."""
    tensors = [network.get_input(number) for number in range(network.num_inputs)]
    tensors += [network.get_output(number) for number in range(network.num_outputs)]
    got = [_described(tensor) for tensor in tensors]
    if set(got) != set(INPUTS_AND_OUTPUTS):
        raise EngineError(
            f"{onnx_path} has {', '.join(got) or 'no inputs and outputs'}, and serving needs "
            f"{', '.join(INPUTS_AND_OUTPUTS)}: export it with export/build.py."
        )


def _described(tensor: Any) -> str:
    axes = ["any" if axis < 0 else "fixed" for axis in tensor.shape]
    return f"{tensor.name} {tensor.dtype.name} {'×'.join(axes)}"


def _choose_level(config: Any, level: int) -> None:
    if level not in OPTIMIZATION_LEVELS:
        raise EngineError(
            f"There is no optimisation level {level}: choose 0, built fast, to 5, runs fast."
        )
    config.builder_optimization_level = level


def _choose_targets(trt: Any, config: Any, log: Any) -> None:
    members = trt.ComputeCapability.__members__.items()
    targets = [target for name, target in members if name not in NO_TARGETS]
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        if not config.set_compute_capability(target, index):
            raise EngineError(f"TensorRT-RTX refuses to build for {target.name}{log.because()}.")


def _choose_batches(builder: Any, config: Any, image: Any, profile: Profile, log: Any) -> None:
    height_width_channels = tuple(image.shape)[1:]
    least, fastest, most = (
        (batch, *height_width_channels)
        for batch in (profile.min_batch, profile.opt_batch, profile.max_batch)
    )
    shapes = builder.create_optimization_profile()
    shapes.set_shape(image.name, least, fastest, most)
    if config.add_optimization_profile(shapes) < 0:
        raise EngineError(f"TensorRT refuses {profile}{log.because()}.")


def _timing_cache(config: Any, path: Path, log: Any) -> Any:
    """The file's; an empty one where that was made for another GPU or version, or is not there."""
    saved = path.read_bytes() if path.is_file() else b""
    for content in (saved, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            log.errors.clear()
            return cache
    raise EngineError(f"TensorRT makes no timing cache{log.because()}.")


def _write(path: Path, content: Any) -> None:
    """All of it, or nothing."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise EngineError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
