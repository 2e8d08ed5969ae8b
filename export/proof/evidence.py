"""The ladder's comparison of heat-maps, features and feature maps, beside that of probabilities.

PyTorch's own come from the network itself, for all classes, and have to be what a class activation
map is by definition: the mean of a class's map over all positions, plus its bias, is the class's
logit. So maps of another layer, or weights of another class, are found out in PyTorch already.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convoy.v1 import classifier_pb2 as pb
from export.catalog import FEATURES, HEATMAP_CLASSES, HEATMAPS, INPUT, LAYER_PREFIX
from export.errors import ParityError
from export.proof.parity import normalised
from export.samples.images import Pixels, Samples

Floats = npt.NDArray[np.float32]

IMAGES = 8  # that are compared; heat-maps are 7×7 numbers, and an image has five
MIN_MAP_TOLERANCE = 1e-3  # share of the largest value of a map
# No softmax evens out what a coarser precision does to a map: a trained digit network in int8
# differs by 0.14 of the largest value where its scores are allowed 0.1.
MAP_TOLERANCE_FACTOR = 2.0


@dataclass(frozen=True)
class Evidence:
    """What a runtime puts out for N images beside their probabilities."""

    classes: npt.NDArray[np.int64] | None = None  # N×M, of which the heat-maps are
    heatmaps: Floats | None = None  # N×M×h×w
    features: Floats | None = None  # N×F
    layers: Mapping[str, Floats] = field(default_factory=dict)  # each N×C×H×W

    def of_one(self, row: int) -> Evidence:
        """Of the image in that row, N being 1."""

        def part(array: Any) -> Any:
            return None if array is None else array[row : row + 1]

        layers = {name: part(layer) for name, layer in self.layers.items()}
        return Evidence(part(self.classes), part(self.heatmaps), part(self.features), layers)


EvidenceAnswer = Callable[[Pixels], Evidence]  # N×H×W×C


def onnx_evidence(path: Path) -> EvidenceAnswer:
    """What the graph puts out in ONNX Runtime on the CPU."""
    import onnxruntime

    @functools.cache  # opened when it is needed
    def opened() -> Any:
        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def answer(images: Pixels) -> Evidence:
        session = opened()
        names = [output.name for output in session.get_outputs()]
        return from_outputs(dict(zip(names, session.run(names, {INPUT: images}), strict=True)))

    return answer


def from_outputs(outputs: Mapping[str, Any]) -> Evidence:
    """From the outputs of a graph, by name."""
    return Evidence(
        outputs.get(HEATMAP_CLASSES),
        outputs.get(HEATMAPS),
        outputs.get(FEATURES),
        {
            name.removeprefix(LAYER_PREFIX): output
            for name, output in outputs.items()
            if name.startswith(LAYER_PREFIX)
        },
    )


# ------------------------------------------------------------------------------ PyTorch


def torch_evidence(
    network: Any, mean: Sequence[float], std: Sequence[float], *, is_bgr: bool = False
) -> EvidenceAnswer:
    """The network itself, in fp32, with a heat-map of every class.

    Raises (the answer):
        ParityError: its maps are not those of its classes.
    """
    import torch

    from export.architectures.taps import taps

    network.eval()
    where = taps(network)
    read = {where.last_layer, where.average, *where.layers.values()} - {""}

    def answer(images: Pixels) -> Evidence:
        taken: dict[str, Any] = {}
        with torch.inference_mode():
            hooks = [
                network.get_submodule(name).register_forward_pre_hook(
                    lambda module, inputs, name=name: taken.update({name: inputs[0]})
                )
                for name in read
            ]
            logits = network(torch.from_numpy(normalised(images, mean, std, is_bgr=is_bgr)))
            for hook in hooks:
                hook.remove()
            heatmaps = None
            if where.average:
                last = network.get_submodule(where.last_layer)
                heatmaps = _class_maps(taken[where.average], last, logits)
            features = taken.get(where.last_layer)
            if features is not None and features.dim() == 4:
                features = features.mean((2, 3))
        return Evidence(
            None if heatmaps is None else np.tile(np.arange(logits.shape[1]), (len(images), 1)),
            heatmaps,
            None if features is None else features.numpy(),
            {layer: _four_axes(taken[module].numpy()) for layer, module in where.layers.items()},
        )

    return answer


def _four_axes(layer: Floats) -> Floats:  # N×C×H×W; a vector's H and W are 1
    return layer if layer.ndim == 4 else layer[:, :, np.newaxis, np.newaxis]


def _class_maps(maps: Any, last: Any, logits: Any) -> Floats:  # N×C×h×w to N×K×h×w
    """
    Raises:
        ParityError: a map's mean is not its class's logit.
    """
    import torch

    heatmaps = maps
    if isinstance(last, torch.nn.Linear):
        heatmaps = torch.einsum("nchw,kc->nkhw", maps, last.weight)
    means = heatmaps.mean((2, 3))
    if isinstance(last, torch.nn.Linear) and last.bias is not None:
        means = means + last.bias
    difference = (means - logits).abs().max() / logits.abs().max()
    if not difference <= MIN_MAP_TOLERANCE:
        raise ParityError(
            f"The heat-maps are not those of the classes: their means differ from the logits by "
            f"{difference:.2g} of the largest. Look at `taps` of the architecture."
        )
    array: Floats = heatmaps.numpy()
    return array


# ------------------------------------------------------------------------------ the comparison


def compare_evidence(
    rung: pb.ParityRung,
    reference: EvidenceAnswer,
    candidate: EvidenceAnswer,
    samples: Samples,
    *,
    max_batch_size: int,
) -> None:
    """Writes into the rung how far heat-maps, layers and features of some images differ, one by one
    and in a batch.

    What is allowed follows from the rung's tolerance of a probability: a map may differ by that
    share of its largest value, or 1e-3, and the cosine of the features is 1 minus it at least.

    Raises:
        ParityError: they differ by more; the message names the image.
    """
    images = samples.pixels[: min(IMAGES, max_batch_size)]
    expected = reference(images)
    differences: list[tuple[float, str]] = []
    cosines: list[tuple[float, str]] = []
    for size in sorted({1, len(images)}):
        for start in range(0, len(images), size):
            answer = candidate(images[start : start + size])
            for row, name in enumerate(samples.names[start : start + size]):
                pair = expected.of_one(start + row), answer.of_one(row)
                differences += [(number, name) for number in map_differences(*pair)]
                cosines += [(number, name) for number in feature_cosines(*pair)]
    judge_evidence(rung, differences, cosines)


def judge_evidence(
    rung: pb.ParityRung,
    differences: Sequence[tuple[float, str]],  # of maps, each with the name of its image
    cosines: Sequence[tuple[float, str]],  # of features
) -> None:
    """
    Raises:
        ParityError: as `compare_evidence`.
    """
    if differences:
        largest, image = max(differences, key=lambda pair: (np.isnan(pair[0]), pair[0]))
        rung.largest_map_difference = largest
        rung.map_tolerance = max(MAP_TOLERANCE_FACTOR * rung.tolerance, MIN_MAP_TOLERANCE)
        if not (largest <= rung.map_tolerance or (rung.reported_only and np.isfinite(largest))):
            raise ParityError(
                f"{rung.name}: a map of {image} differs by {largest:.2g} of its largest value, and "
                f"{rung.map_tolerance:g} is allowed."
            )
    if cosines:
        smallest, image = min(cosines, key=lambda pair: (not np.isnan(pair[0]), pair[0]))
        rung.smallest_features_cosine = smallest
        rung.required_features_cosine = 1 - rung.tolerance
        required = rung.required_features_cosine
        if not (smallest >= required or (rung.reported_only and np.isfinite(smallest))):
            raise ParityError(
                f"{rung.name}: the features of {image} have a cosine of {smallest:.6f}, and at "
                f"least {required:g} is required."
            )


def map_differences(expected: Evidence, answer: Evidence) -> Iterator[float]:
    """Of the heat-maps of each class that both have, and of each layer, for one image."""
    if expected.heatmaps is not None and answer.heatmaps is not None:
        wanted, got = _by_class(expected), _by_class(answer)
        common = wanted.keys() & got.keys()
        if not common:
            yield float("nan")
        for index in sorted(common):
            yield _share(wanted[index], got[index])
    for name, layer in answer.layers.items():
        yield _share(expected.layers[name], layer)


def feature_cosines(expected: Evidence, answer: Evidence) -> Iterator[float]:
    """Of one image: the cosine between the features of the two, if both have them."""
    if expected.features is not None and answer.features is not None:
        yield cosine(expected.features[0], answer.features[0])


def scale(heatmap: Floats) -> Floats:
    """From the least evidence, 0, to the most, 1; a map that is the same everywhere is all 0."""
    low, high = heatmap.min(), heatmap.max()
    return (heatmap - low) / (high - low) if high > low else np.zeros_like(heatmap)


def cosine(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if one.shape != other.shape:
        return float("nan")
    length = np.linalg.norm(one) * np.linalg.norm(other)
    return float(one @ other / length) if length else float(not (one.any() or other.any()))


def _by_class(evidence: Evidence) -> dict[int, Floats]:
    assert evidence.classes is not None and evidence.heatmaps is not None
    return dict(zip(evidence.classes[0].tolist(), evidence.heatmaps[0], strict=True))


def _share(expected: Floats, got: Floats) -> float:
    """The largest difference, as a share of the largest value."""
    if expected.shape != got.shape:
        return float("nan")
    largest = float(np.abs(expected).max())
    difference = float(np.abs(expected - got).max())
    return difference / largest if largest else difference
