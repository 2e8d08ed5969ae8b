"""A plan's answers: TensorRT runs it on the GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.catalog import BATCH_SIZE, INPUT
from export.conversion.cuda_driver import on_gpu
from export.conversion.tensorrt_library import create_log, load_library
from export.errors import EngineError
from export.samples.images import Pixels

DEFAULT_STREAM = 0

Outputs = dict[str, npt.NDArray[Any]]  # by name


def engine_outputs(plan_path: Path) -> Callable[[Pixels], Outputs]:
    """Returns all outputs of the plan in TensorRT on the GPU.

    Raises (also when asked):
        EngineError: TensorRT cannot load or run the plan, or the plan reports another batch size
            than it was given.
    """
    trt = load_library("tensorrt")
    log = create_log(trt)
    engine = trt.Runtime(log).deserialize_cuda_engine(plan_path.read_bytes())
    if engine is None:
        raise EngineError(f"TensorRT cannot load {plan_path}{log.reason()}.")
    context = engine.create_execution_context()
    if context is None:
        raise EngineError(f"TensorRT cannot run {plan_path}{log.reason()}.")
    names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]

    def run(images: Pixels) -> Outputs:
        # TensorRT computes all outputs, and wants a place for each.
        tensors = {INPUT: np.ascontiguousarray(images)} | {
            name: np.zeros(
                (len(images), *engine.get_tensor_shape(name)[1:]),
                trt.nptype(engine.get_tensor_dtype(name)),
            )
            for name in names
            if name != INPUT
        }
        with on_gpu(*tensors.values()) as addresses:
            ready = context.set_input_shape(INPUT, images.shape) and all(
                context.set_tensor_address(name, address)
                for name, address in zip(tensors, addresses, strict=True)
            )
            if not (ready and context.execute_async_v3(DEFAULT_STREAM)):
                raise EngineError(
                    f"TensorRT cannot run a batch of {len(images)} images{log.reason()}."
                )
        if (tensors[BATCH_SIZE] != len(images)).any():
            raise EngineError(
                f"{plan_path} answers {len(images)} images with batch_size "
                f"{tensors[BATCH_SIZE].tolist()}: the export made the batch axis a constant."
            )
        return tensors

    return run
