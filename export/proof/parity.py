"""Parity: each runtime's answers are compared with those of the one before, on the same real
images.

    PyTorch fp32 → ONNX fp32 → ONNX in its precision → engine → the served answer

The tolerance of the first rung is tight, to catch a wrong eps, mean or operator. That of the rung
to another precision is in the network's row of the catalog. The last rung compares one file with
itself behind the gateway (served.py) and is tight again. A rung that fails raises, and the build
publishes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convoy.v1 import classifier_pb2 as pb
from export.catalog import BATCH_SIZE, INPUT, PROBABILITIES, Activation
from export.errors import ParityError
from export.samples.images import Answer, Pixels, Probabilities, Samples


def torch_answer(
    module: Any,
    mean: Sequence[float],
    std: Sequence[float],
    activation: Activation = "softmax",
    *,
    is_bgr: bool = False,
) -> Answer:
    """Returns the answers of the network itself, in fp32."""
    import torch

    module.eval()

    def answer(images: Pixels) -> Probabilities:
        with torch.inference_mode():
            logits = module(torch.from_numpy(normalised(images, mean, std, is_bgr=is_bgr)))
            scores = logits.sigmoid() if activation == "sigmoid" else logits.softmax(dim=1)
            probabilities: Probabilities = scores.numpy()
            return probabilities

    return answer


def normalised(
    images: Pixels, mean: Sequence[float], std: Sequence[float], *, is_bgr: bool
) -> npt.NDArray[np.float32]:
    """What a network reads, N×C×H×W: without the code that exports, so that a mistake there shows.

    Mean and std are those of red, green and blue, or of grey.
    """
    channels = np.asarray([mean, std], dtype=np.float32)
    inputs: npt.NDArray[np.float32] = (images.astype(np.float32) / 255 - channels[0]) / channels[1]
    return (inputs[..., ::-1] if is_bgr else inputs).transpose(0, 3, 1, 2).copy()


def onnx_answer(path: Path) -> Answer:
    """Returns the answers of the graph in ONNX Runtime on the CPU.

    Raises (when asked):
        ParityError: the graph reports another batch size than it was given.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def answer(images: Pixels) -> Probabilities:
        probabilities: Probabilities
        probabilities, batch_size = session.run([PROBABILITIES, BATCH_SIZE], {INPUT: images})
        if batch_size.tolist() != [[len(images)]] * len(images):
            raise ParityError(
                f"{path.name} answers {len(images)} images with batch_size {batch_size.tolist()}: "
                "the export made the batch axis a constant."
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
    """Compares two runtimes: one rung of the ladder, at batch sizes 1, 2, 3 and the largest.

    Raises:
        ParityError: a probability differs by more than the tolerance; the message names the image.
    """
    answers = answer_in_batches(candidate, samples.pixels, max_batch_size)
    expected = reference(samples.pixels)
    return judge(name, expected, answers, samples.names, tolerance, reported_only=reported_only)


def answer_in_batches(
    answer: Callable[[Any], Probabilities], inputs: Any, max_batch_size: int
) -> dict[int, Probabilities]:
    """Returns all answers, N×K, by batch size: 1, 2, 3 and the largest."""
    sizes = sorted({size for size in (1, 2, 3, max_batch_size) if size <= max_batch_size})
    return {size: answer_batches(answer, inputs, size) for size in sizes}


def answer_batches(answer: Callable[[Any], Probabilities], inputs: Any, size: int) -> Probabilities:
    """N×K, of batches of that size; the last one may be smaller."""
    batches = [inputs[start : start + size] for start in range(0, len(inputs), size)]
    return np.concatenate([answer(batch) for batch in batches])


def judge(
    name: str,
    expected: Probabilities,
    answers: Mapping[int, Probabilities],  # by batch size
    names: Sequence[str],  # of the N images
    tolerance: float,
    *,
    reported_only: bool = False,
) -> pb.ParityRung:
    """Judges the answers, N×K each, by their largest difference from the expected ones.

    A rung that is `reported_only` may differ by more than the tolerance.

    Raises:
        ParityError: as for `compare`.
    """
    sizes, candidates = list(answers), list(answers.values())
    differences = np.stack([np.abs(answer - expected).max(axis=1) for answer in candidates])
    worst_batch, worst = map(int, np.unravel_index(_argmax(differences), differences.shape))
    rung = pb.ParityRung(
        name=name,
        images=len(names),
        batch_sizes=sizes,
        top1_agreement=_agreement(expected, candidates, 1),
        top5_agreement=_agreement(expected, candidates, 5),
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
        f"the top-1 class agrees for {rung.top1_agreement:.0%} of {rung.images} images."
    )


def _argmax(differences: npt.NDArray[np.float32]) -> np.intp:
    """Returns the position of the largest difference; NaN counts as the largest."""
    return np.argmax(np.where(np.isnan(differences), np.inf, differences))


def _agreement(expected: Probabilities, answers: Iterable[Probabilities], k: int) -> float:
    """Returns the share of answers whose k best classes, in any order, are the expected ones."""
    best = _best(expected, k)
    return float(np.mean([(_best(answer, k) == best).all(axis=1) for answer in answers]))


def _best(probabilities: Probabilities, k: int) -> npt.NDArray[np.intp]:
    return np.sort(np.argsort(-probabilities, axis=1, kind="stable")[:, :k], axis=1)
