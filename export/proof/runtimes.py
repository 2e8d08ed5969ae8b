"""What the ladder compares: a runtime with a network in it, asked for answers and for evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.catalog import PROBABILITIES, Activation
from export.proof.evidence import EvidenceAnswer, from_outputs, onnx_evidence, torch_evidence
from export.proof.parity import onnx_answer, torch_answer
from export.samples.images import Answer


@dataclass(frozen=True)
class Runtime:
    """A runtime with a network."""

    answer: Answer
    evidence: EvidenceAnswer


def torch_runtime(
    module: Any,
    mean: Sequence[float],
    std: Sequence[float],
    activation: Activation = "softmax",
    *,
    is_bgr: bool = False,
) -> Runtime:
    return Runtime(
        torch_answer(module, mean, std, activation, is_bgr=is_bgr),
        torch_evidence(module, mean, std, is_bgr=is_bgr),
    )


def onnx_runtime(path: Path) -> Runtime:
    return Runtime(onnx_answer(path), onnx_evidence(path))


def engine_runtime(path: Path) -> Runtime:
    from export.conversion.tensorrt_runtime import engine_outputs

    outputs = engine_outputs(path)
    return Runtime(
        lambda images: outputs(images)[PROBABILITIES], lambda images: from_outputs(outputs(images))
    )
