"""ONNX to an engine: a plan of TensorRT, which Triton serves, or an engine of TensorRT-RTX.

The two libraries share an API, and the same code serves TensorRT 10.12 and later, 11, and RTX:

- networks are strongly typed: the precision is that of the graph, and no builder flag changes it;
- a plan is built on the local GPU and only for its kind; an RTX engine is built ahead of time,
  without a GPU, for every kind from Ampere on;
- the API fails in silence: it accepts an invalid batch range or the name of no input, and a build
  may return nothing. Each is checked here, and the message quotes the library's log.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convoy.v1 import classifier_pb2 as pb
from export.catalog import BATCH_SIZE, INPUT, PROBABILITIES, is_evidence_name
from export.conversion.engine_header import Library
from export.conversion.tensorrt_library import create_log, describe_target, load_library, shorten
from export.errors import EngineError
from export.progress import SILENT, Reporter

OPTIMIZATION_LEVELS = range(6)  # 0 builds fast, 5 runs fast; the API clips other values
# Not Turing (7.5): RTX has no fp32 matrix product for it, which every network here ends with.
NO_TARGETS = ("NONE", "CURRENT", "SM75")
INPUTS_AND_OUTPUTS = (
    f"{INPUT} UINT8 any×fixed×fixed×fixed",
    f"{PROBABILITIES} FLOAT any×fixed",
    f"{BATCH_SIZE} INT32 any×fixed",
)


@dataclass(frozen=True)
class Profile:
    """Batch sizes: the minimum, the one for which the engine is optimised, the maximum."""

    min_batch: int
    opt_batch: int
    max_batch: int

    def __post_init__(self) -> None:
        if not 1 <= self.min_batch <= self.opt_batch <= self.max_batch:
            raise EngineError(
                f"No engine can take batches of {self.min_batch} to {self.max_batch} images and be "
                f"optimised for {self.opt_batch}: choose 1 ≤ minimum ≤ optimum ≤ maximum."
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
    """Builds the engine of the graph, writes it (completely or not at all), and describes it.

    `optimization_level` is 0 (builds fast) to 5 (runs fast); by default the library chooses. The
    timing cache makes the next build for the same kind of GPU faster; RTX has none. `reporter` is
    called from another thread. Ctrl-C ends the build at its next step.

    Raises:
        EngineError: the library is not installed, or cannot build the graph; the message says why.
    """
    trt = load_library(library)
    facts = describe_target(trt, library)
    # Both must outlive TensorRT's objects that refer to them, which _build creates and frees.
    log, monitor = create_log(trt), _create_monitor(trt, reporter)
    cache_path = timing_cache_path if library == "tensorrt" else None
    work = functools.partial(
        _build, trt, log, monitor, onnx_path, profile, optimization_level, cache_path
    )
    # In another thread, since this one notices Ctrl-C only while it runs Python.
    with ThreadPoolExecutor(1, "tensorrt") as executor:
        try:
            engine = executor.submit(work).result()
        except BaseException:
            monitor.cancelled.set()
            raise
    _write_atomically(engine_path, engine)
    facts.MergeFrom(
        pb.Engine(
            sha256=hashlib.sha256(engine).hexdigest(),
            min_batch=profile.min_batch,
            opt_batch=profile.opt_batch,
            max_batch=profile.max_batch,
        )
    )
    return facts


def _create_monitor(trt: Any, reporter: Reporter) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Reports the progress of each (nested) phase, and ends a cancelled build."""

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

        def phase_finish(self, phase: str) -> None:  # possibly before its last step
            with self._lock:
                total = self._totals.pop(phase)
                reporter.progress(phase, total, total)

    return Monitor()


def _build(
    trt: Any,
    log: Any,
    monitor: Any,
    onnx_path: Path,
    profile: Profile,
    optimization_level: int | None,
    timing_cache_path: Path | None,
) -> Any:
    """Returns the engine in TensorRT's memory: copying a VGG's would take 0.6 GB."""
    builder = trt.Builder(log)
    network = _parse(trt, log, builder, onnx_path)
    config = builder.create_builder_config()
    config.progress_monitor = monitor
    # Otherwise fp32 would mean TF32, of 10 bits, and no comparison with ONNX Runtime could be
    # tight.
    config.clear_flag(trt.BuilderFlag.TF32)
    if optimization_level is not None:
        _choose_level(config, optimization_level)
    if hasattr(trt, "ComputeCapability"):  # RTX
        _choose_targets(trt, config, log)
    _choose_batches(builder, config, network.get_input(0), profile, log)
    cache = _timing_cache(config, timing_cache_path, log) if timing_cache_path else None
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise EngineError(f"TensorRT cannot build {onnx_path}{log.reason()}.")
    if timing_cache_path and cache:
        _write_atomically(timing_cache_path, cache.serialize())
    return engine


def _parse(trt: Any, log: Any, builder: Any, onnx_path: Path) -> Any:
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(onnx_path)):
        raise EngineError(f"TensorRT cannot read {onnx_path}{_parser_reason(parser, log)}.")
    _check(network, onnx_path)
    return network


def _parser_reason(parser: Any, log: Any) -> str:
    if not parser.num_errors:
        return str(log.reason())
    error = parser.get_error(0)
    if not error.node_operator():
        return f": {shorten(error.desc())}"
    node = " ".join(filter(None, ("node", error.node_name(), f"({error.node_operator()})")))
    return f": {node}, {shorten(error.desc())}"


def _check(network: Any, onnx_path: Path) -> None:
    """A file that is not ONNX parses without an error, into a network without inputs."""
    tensors = [network.get_input(number) for number in range(network.num_inputs)]
    tensors += [network.get_output(number) for number in range(network.num_outputs)]
    actual = [_describe_tensor(tensor) for tensor in tensors if not is_evidence_name(tensor.name)]
    if set(actual) != set(INPUTS_AND_OUTPUTS):
        raise EngineError(
            f"{onnx_path} has {', '.join(actual) or 'no inputs and outputs'}, but serving needs "
            f"{', '.join(INPUTS_AND_OUTPUTS)}: export it with export/build.py."
        )


def _describe_tensor(tensor: Any) -> str:
    axes = ["any" if axis < 0 else "fixed" for axis in tensor.shape]
    return f"{tensor.name} {tensor.dtype.name} {'×'.join(axes)}"


def _choose_level(config: Any, level: int) -> None:
    if level not in OPTIMIZATION_LEVELS:
        raise EngineError(
            f"There is no optimisation level {level}: choose 0 (builds fast) to 5 (runs fast)."
        )
    config.builder_optimization_level = level


def _choose_targets(trt: Any, config: Any, log: Any) -> None:
    members = trt.ComputeCapability.__members__.items()
    targets = [target for name, target in members if name not in NO_TARGETS]
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        if not config.set_compute_capability(target, index):
            raise EngineError(f"TensorRT-RTX cannot build for {target.name}{log.reason()}.")


def _choose_batches(builder: Any, config: Any, image: Any, profile: Profile, log: Any) -> None:
    height_width_channels = tuple(image.shape)[1:]
    minimum, optimum, maximum = (
        (batch, *height_width_channels)
        for batch in (profile.min_batch, profile.opt_batch, profile.max_batch)
    )
    shapes = builder.create_optimization_profile()
    shapes.set_shape(image.name, minimum, optimum, maximum)
    if config.add_optimization_profile(shapes) < 0:
        raise EngineError(f"TensorRT rejects {profile}{log.reason()}.")


def _timing_cache(config: Any, path: Path, log: Any) -> Any:
    """Loads the cache; an empty one if the file is missing or for another GPU or version."""
    saved = path.read_bytes() if path.is_file() else b""
    for content in (saved, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            log.errors.clear()
            return cache
    raise EngineError(f"TensorRT cannot create a timing cache{log.reason()}.")


def _write_atomically(path: Path, content: Any) -> None:
    """Writes the whole file or nothing."""
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
