"""ONNX Runtime on a user's file: opened, asked for any of its tensors, its errors in one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from export.errors import AdoptionError

FATAL = 4  # ONNX Runtime's level of logging: errors are raised, and need not be printed too


def open_session(
    source: str | bytes, name: str, options: onnxruntime.SessionOptions | None = None
) -> onnxruntime.InferenceSession:
    """
    Raises:
        AdoptionError: ONNX Runtime does not open it; the message has its reason.
    """
    options = options or onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise AdoptionError(
            f"ONNX Runtime {onnxruntime.__version__}, which serves models, does not open {name}: "
            f"{first_line(error)}"
        ) from error


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> bytes:
    """The same graph, which gives these of its tensors."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    known = {output.name: output for output in model.graph.output}
    del changed.graph.output[:]
    for name in dict.fromkeys(names):
        changed.graph.output.append(known.get(name) or onnx.ValueInfoProto(name=name))
    return changed.SerializeToString()


def run_in_batches(
    session: onnxruntime.InferenceSession, images: npt.NDArray[Any], batch: int, name: str
) -> dict[str, npt.NDArray[Any]]:
    """All outputs for N images, `batch` at a time; the last batch is filled up with zeros.

    Raises:
        AdoptionError: the file fails, or answers another number of images.
    """
    (feed,), outputs = session.get_inputs(), [entry.name for entry in session.get_outputs()]
    parts: dict[str, list[npt.NDArray[Any]]] = {output: [] for output in outputs}
    for chunk in _batches(images, batch):
        full = np.zeros((batch, *images.shape[1:]), images.dtype)
        full[: len(chunk)] = chunk
        options = onnxruntime.RunOptions()
        options.log_severity_level = FATAL
        try:
            answers = session.run(outputs, {feed.name: full}, options)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise AdoptionError(f"{name} fails for a picture: {first_line(error)}") from error
        for output, answer in zip(outputs, answers, strict=True):
            parts[output].append(np.asarray(answer)[: len(chunk)])
    return {output: np.concatenate(arrays) for output, arrays in parts.items()}


def _batches(images: npt.NDArray[Any], batch: int) -> Iterator[npt.NDArray[Any]]:
    for start in range(0, len(images), batch):
        yield images[start : start + batch]


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
