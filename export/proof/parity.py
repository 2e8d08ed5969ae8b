"""The ladder: each runtime's answers beside those of the one before it, on the same real images.

    PyTorch fp32 → ONNX fp32 → ONNX in its precision → engine → the served answer

The first step is tight and catches a wrong eps, mean or operator; the step to another precision is
as loose as the network's row in the catalog says; the last is one file against itself behind the
gateway (served.py), and tight again. A step that fails raises, and the build publishes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convoy.v1 import classifier_pb2 as pb
from export.catalog import BATCH_SIZE, INPUT, PROBABILITIES
from export.errors import ParityError
from export.samples.images import Pixels, Samples

Probabilities = npt.NDArray[np.float32]  # N×K
Answer = Callable[[Pixels], Probabilities]  # N×H×W×C to N×K


def torch_answer(module: Any, mean: Sequence[float], std: Sequence[float]) -> Answer:
    """The network itself, in fp32; normalised here and not by the code that exports it, so that a
    mistake there shows."""
    import torch

    module.eval()

    def as_float(channels: Sequence[float]) -> Probabilities:
        return np.asarray(channels, dtype=np.float32)

    def answer(images: Pixels) -> Probabilities:
        normalised = (images.astype(np.float32) / 255 - as_float(mean)) / as_float(std)
        with torch.inference_mode():
            logits = module(torch.from_numpy(normalised.transpose(0, 3, 1, 2).copy()))
            probabilities: Probabilities = logits.softmax(dim=1).numpy()
            return probabilities

    return answer


def onnx_answer(path: Path) -> Answer:
    """The graph in ONNX Runtime on the CPU, which also has to tell the size of each batch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def answer(images: Pixels) -> Probabilities:
        probabilities: Probabilities
        probabilities, batch_size = session.run([PROBABILITIES, BATCH_SIZE], {INPUT: images})
        if batch_size.tolist() != [[len(images)]] * len(images):
            raise ParityError(
                f"{path.name} answers {len(images)} images with batch_size {batch_size.tolist()}: "
                "the graph took the batch axis for a constant."
            )
        return probabilities

    return answer


def compare(
    name: str,
    reference: Answer,
    candidate: Answer,
    samples: Samples,
    *,
    max_batch_size: int,
    tolerance: float,
    reported_only: bool = False,
) -> pb.ParityRung:
    """One step of the ladder, at batch 1, 2, 3 and the largest.

    Raises:
        ParityError: a probability differs by more than the tolerance; the message names the image.
    """
    answers = at_each_batch_size(candidate, samples.pixels, max_batch_size)
    expected = reference(samples.pixels)
    return judged(name, expected, answers, samples.names, tolerance, reported_only=reported_only)


def at_each_batch_size(
    answer: Callable[[Any], Probabilities], inputs: Any, max_batch_size: int
) -> dict[int, Probabilities]:
    """All answers, by the size of the batches that they were asked in."""
    sizes = sorted({size for size in (1, 2, 3, max_batch_size) if size <= max_batch_size})
    return {
        size: np.concatenate(
            [answer(inputs[start : start + size]) for start in range(0, len(inputs), size)]
        )
        for size in sizes
    }


def judged(
    name: str,
    expected: Probabilities,
    answers: Mapping[int, Probabilities],  # by batch size
    names: Sequence[str],  # of the images
    tolerance: float,
    *,
    reported_only: bool = False,
) -> pb.ParityRung:
    """
    Raises:
        ParityError: as `compare`.
    """
    sizes, found = list(answers), list(answers.values())
    differences = np.stack([np.abs(answer - expected).max(axis=1) for answer in found])
    worst_batch, worst = map(int, np.unravel_index(_argmax(differences), differences.shape))
    rung = pb.ParityRung(
        name=name,
        images=len(names),
        batch_sizes=sizes,
        top1_agreement=_agreement(expected, found, 1),
        top5_agreement=_agreement(expected, found, 5),
        largest_difference=differences[worst_batch, worst],
        tolerance=tolerance,
        worst_image=names[worst],
        reported_only=reported_only,
    )
    is_number = bool(np.isfinite(rung.largest_difference))
    if (reported_only and is_number) or rung.largest_difference <= tolerance:
        return rung
    raise ParityError(
        f"{name}: a probability of {rung.worst_image} differs by {rung.largest_difference:.2g} "
        f"in a batch of {sizes[worst_batch]}, and {tolerance:g} is allowed; "
        f"top-1 agrees for {rung.top1_agreement:.0%} of {rung.images} images."
    )


def _argmax(differences: npt.NDArray[np.float32]) -> np.intp:
    """Where the largest is; what is not a number counts as larger than all."""
    return np.argmax(np.where(np.isnan(differences), np.inf, differences))


def _agreement(expected: Probabilities, answers: Iterable[Probabilities], k: int) -> float:
    """Share of all answers whose k best classes, in any order, are the expected ones."""
    best = _best(expected, k)
    return float(np.mean([(_best(answer, k) == best).all(axis=1) for answer in answers]))


def _best(probabilities: Probabilities, k: int) -> npt.NDArray[np.intp]:
    return np.sort(np.argsort(-probabilities, axis=1, kind="stable")[:, :k], axis=1)
