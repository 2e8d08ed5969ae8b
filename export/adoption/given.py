"""The user's file itself in ONNX Runtime, fed by code that the wrapper does not share.

It is the reference of the ladder's first rung, so it takes one picture after the other, or as many
as the file demands, and normalises in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from export.adoption.classifier import Classifier
from export.adoption.endings import class_maps, constants
from export.adoption.sessions import open_session, run_in_batches, with_outputs
from export.adoption.wrapper import Scores
from export.catalog import Activation, Network
from export.proof.evidence import Evidence
from export.proof.parity import normalised
from export.proof.runtimes import Runtime
from export.samples.images import Pixels, Probabilities


def given_runtime(
    given: Classifier, network: Network, scores: Scores, activation: Activation = "softmax"
) -> Runtime:
    @cache  # opened when it is needed
    def opened(*tensors: str) -> Any:
        source = with_outputs(given.file.model, tensors) if tensors else str(given.file.path)
        return open_session(source, given.file.name)

    def run(pixels: Pixels, *tensors: str) -> dict[str, npt.NDArray[Any]]:
        return run_in_batches(
            opened(*tensors), feed(pixels, network, given), given.batch or 1, given.file.name
        )

    def answer(pixels: Pixels) -> Probabilities:
        return to_probabilities(run(pixels)[given.output], given, scores, activation)

    return Runtime(answer, partial(_evidence, given, run))


def to_probabilities(
    outputs: npt.NDArray[Any], given: Classifier, scores: Scores, activation: Activation
) -> Probabilities:
    """N×K, of what the file gives for N images."""
    probabilities: Probabilities = outputs.reshape(len(outputs), given.classes).astype(np.float32)
    if scores == "probabilities":
        return probabilities
    return sigmoid(probabilities) if activation == "sigmoid" else softmax(probabilities)


def _evidence(
    given: Classifier, run: Callable[..., dict[str, npt.NDArray[Any]]], pixels: Pixels
) -> Evidence:
    """With a heat-map of every class."""
    linear = given.ending.linear
    if linear is None:
        return Evidence()
    tensors = run(pixels, linear.maps, linear.features)
    maps = tensors[linear.maps].astype(np.float32)
    weights = constants(given.file.model.graph)[linear.weights].astype(np.float32)
    heatmaps = class_maps(
        maps if linear.is_nchw else maps.transpose(0, 3, 1, 2),
        weights.T if linear.is_transposed else weights,
    )
    classes = np.tile(np.arange(given.classes), (len(pixels), 1))
    return Evidence(classes, heatmaps, tensors[linear.features].astype(np.float32))


def softmax(logits: Probabilities) -> Probabilities:  # N×K
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Probabilities = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def sigmoid(logits: Probabilities) -> Probabilities:  # N×K
    return (1 / (1 + np.exp(-np.clip(logits, -80, None)))).astype(np.float32)


def feed(pixels: Pixels, network: Network, given: Classifier) -> npt.NDArray[Any]:
    """The file's input for pixels N×H×W×3 of red, green and blue."""
    if given.takes_pixels:
        ordered = pixels[..., ::-1] if network.is_bgr else pixels
        values: npt.NDArray[Any] = ordered.transpose(0, 3, 1, 2)
    else:
        values = normalised(pixels, network.mean, network.std, is_bgr=network.is_bgr)
    laid_out = values if given.layout == "NCHW" else values.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(laid_out, given.dtype)
