"""The ladder: each runtime's answers beside those of the one before it, on the same real images.

    PyTorch fp32 → ONNX fp32 → ONNX fp16

The first step is tight and catches a wrong eps, mean or operator; the step to fp16 is as loose as
the network's row in the catalog says. A step that fails raises, and the build publishes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from convoy.v1 import classifier_pb2 as pb
from export.errors import ParityError
from export.samples import Pixels, Samples
from export.to_onnx import BATCH_SIZE, INPUT, PROBABILITIES, Servable

Probabilities = npt.NDArray[np.float32]  # N×K
Answer = Callable[[Pixels], Probabilities]  # N×H×W×C to N×K


def torch_answer(servable: Servable) -> Answer:
    def answer(images: Pixels) -> Probabilities:
        with torch.inference_mode():
            probabilities: Probabilities = servable(torch.from_numpy(images))[0].numpy()
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


def in_batches(answer: Answer, images: Pixels, size: int) -> Probabilities:
    return np.concatenate(
        [answer(images[start : start + size]) for start in range(0, len(images), size)]
    )


def compare(
    name: str,
    reference: Answer,
    candidate: Answer,
    samples: Samples,
    *,
    max_batch_size: int,
    tolerance: float,
) -> pb.ParityRung:
    """One step of the ladder, at batch 1, 2, 3 and the largest.

    Raises:
        ParityError: a probability differs by more than the tolerance; the message names the image.
    """
    expected = reference(samples.pixels)
    sizes = sorted({size for size in (1, 2, 3, max_batch_size) if size <= max_batch_size})
    answers = [in_batches(candidate, samples.pixels, size) for size in sizes]
    differences = np.stack([np.abs(answer - expected).max(axis=1) for answer in answers])
    worst_batch, worst = np.unravel_index(_argmax(differences), differences.shape)
    rung = pb.ParityRung(
        name=name,
        images=len(samples),
        batch_sizes=sizes,
        top1_agreement=_agreement(expected, answers, 1),
        top5_agreement=_agreement(expected, answers, 5),
        largest_difference=differences[worst_batch, worst],
        tolerance=tolerance,
        worst_image=samples.names[worst],
    )
    # Written so that an answer that is not a number fails too.
    if not rung.largest_difference <= tolerance:
        raise ParityError(
            f"{name}: a probability of {rung.worst_image} differs by {rung.largest_difference:.2g} "
            f"in a batch of {sizes[worst_batch]}, and {tolerance:g} is allowed; "
            f"top-1 agrees for {rung.top1_agreement:.0%} of {rung.images} images."
        )
    return rung


def _argmax(differences: npt.NDArray[np.float32]) -> np.intp:
    """Where the largest is; what is not a number counts as larger than all."""
    return np.argmax(np.where(np.isnan(differences), np.inf, differences))


def _agreement(expected: Probabilities, answers: Iterable[Probabilities], k: int) -> float:
    """Share of all answers whose k best classes, in any order, are the expected ones."""
    best = _best(expected, k)
    return float(np.mean([(_best(answer, k) == best).all(axis=1) for answer in answers]))


def _best(probabilities: Probabilities, k: int) -> npt.NDArray[np.intp]:
    return np.sort(np.argsort(-probabilities, axis=1, kind="stable")[:, :k], axis=1)
