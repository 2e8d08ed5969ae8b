"""A plan's answers: TensorRT runs it on the GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from export.catalog import BATCH_SIZE, INPUT, PROBABILITIES
from export.conversion.cuda_driver import on_gpu
from export.conversion.tensorrt_library import create_log, load_library
from export.errors import EngineError
from export.samples.images import Answer, Pixels, Probabilities

DEFAULT_STREAM = 0


def engine_answer(plan_path: Path) -> Answer:
    """Returns the answers of the plan in TensorRT on the GPU.

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
                raise EngineError(f"TensorRT cannot run a batch of {count} images{log.reason()}.")
        if (tensors[BATCH_SIZE] != count).any():
            raise EngineError(
                f"{plan_path} answers {count} images with batch_size "
                f"{tensors[BATCH_SIZE].tolist()}: the export made the batch axis a constant."
            )
        return tensors[PROBABILITIES]

    return answer
