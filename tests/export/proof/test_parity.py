from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.catalog import Network, find
from export.checkpoints.load import Loaded
from export.conversion.to_onnx import Precision, ServedNetwork, to_onnx
from export.errors import ParityError
from export.proof.parity import compare, onnx_answer, torch_answer
from export.samples.images import (
    PROOF_SEED,
    Answer,
    Pixels,
    Probabilities,
    Samples,
    samples,
)


@pytest.fixture(scope="module")
def lenet5() -> Network:
    return find("lenet5")


@pytest.fixture(scope="module")
def images(lenet5: Network) -> Samples:
    return samples(lenet5, 20, PROOF_SEED)


@pytest.fixture(scope="module")
def reference(lenet5: Network, random_lenet5: Loaded) -> Answer:
    return torch_answer(random_lenet5.network, lenet5.mean, lenet5.std)


def test_two_runtimes_agree(reference: Answer, lenet5_graph: Path, images: Samples) -> None:
    rung = compare(
        "one → other",
        reference,
        onnx_answer(lenet5_graph),
        images,
        max_batch_size=8,
        tolerance=1e-4,
    )
    assert (rung.images, list(rung.batch_sizes)) == (20, [1, 2, 3, 8])
    assert (rung.top1_agreement, rung.top5_agreement) == (1, 1)
    assert 0 < rung.largest_difference < 1e-5
    assert rung.worst_image in images.names


def test_fp16_stays_within_the_catalogs_tolerance(
    resnet18: Network, random_resnet18: Loaded, resnet18_graphs: dict[Precision, Path]
) -> None:
    rung = compare(
        "PyTorch fp32 → ONNX fp16",
        torch_answer(random_resnet18.network, resnet18.mean, resnet18.std),
        onnx_answer(resnet18_graphs["fp16"]),
        samples(resnet18, 8, PROOF_SEED),
        max_batch_size=8,
        tolerance=resnet18.random_fp16_tolerance,
    )
    assert rung.largest_difference > resnet18.fp32_tolerance  # else nothing was halved


def test_sigmoid_is_compared_with_sigmoid(
    lenet5: Network, random_lenet5: Loaded, lenet5_graph: Path, images: Samples, tmp_path: Path
) -> None:
    module, mean, std = random_lenet5.network, lenet5.mean, lenet5.std
    to_onnx(
        ServedNetwork(module, mean, std, "fp32", activation="sigmoid"), 32, 10, tmp_path / "s.onnx"
    )
    reference = torch_answer(module, mean, std, "sigmoid")
    assert reference(images.pixels) == pytest.approx(
        1 / (1 + np.exp(-logits_of(random_lenet5, lenet5, images.pixels))), abs=1e-6
    )
    rung = compare(
        "a → b",
        reference,
        onnx_answer(tmp_path / "s.onnx"),
        images,
        max_batch_size=8,
        tolerance=1e-4,
    )
    assert 0 < rung.largest_difference < 1e-5
    with pytest.raises(ParityError):
        compare(
            "a → b",
            reference,
            onnx_answer(lenet5_graph),
            images,
            max_batch_size=8,
            tolerance=1e-4,
        )


def logits_of(loaded: Loaded, network: Network, pixels: Pixels) -> Any:
    normalised = (pixels / 255 - np.array(network.mean)) / np.array(network.std)
    with torch.inference_mode():
        inputs = torch.from_numpy(normalised.transpose(0, 3, 1, 2).astype(np.float32))
        return loaded.network(inputs).numpy()


def test_wrong_mean_is_found_and_the_image_named(
    lenet5: Network, random_lenet5: Loaded, lenet5_graph: Path, images: Samples
) -> None:
    wrong = torch_answer(random_lenet5.network, (0.5,), lenet5.std)
    with pytest.raises(ParityError, match=r"probability of held-out digit .* 0\.0001 is allowed"):
        compare("a → b", wrong, onnx_answer(lenet5_graph), images, max_batch_size=8, tolerance=1e-4)


def test_image_that_is_worst_in_one_batch_is_named(reference: Answer, images: Samples) -> None:
    def wrong_in_threes(pixels: Pixels) -> Probabilities:
        answers = reference(pixels).copy()
        if len(pixels) == 3 and np.array_equal(pixels[2], images.pixels[5]):
            answers[2, 0] += 0.5
        return answers

    with pytest.raises(ParityError, match=rf"{images.names[5]} .* in a batch of 3,"):
        compare("a → b", reference, wrong_in_threes, images, max_batch_size=8, tolerance=1e-4)


def test_answer_that_is_not_a_number_is_a_difference(reference: Answer, images: Samples) -> None:
    def broken(pixels: Pixels) -> Probabilities:
        return np.full((len(pixels), 10), np.nan, dtype=np.float32)

    with pytest.raises(ParityError, match="differs by nan"):
        compare("a → b", reference, broken, images, max_batch_size=8, tolerance=1e-4)


def test_agreement_counts_sets_of_the_best(reference: Answer, images: Samples) -> None:
    """Swapping the two best changes top-1 and leaves top-5."""

    def swapped(pixels: Pixels) -> Probabilities:
        answers = reference(pixels).copy()
        for row in answers:
            second, first = np.argsort(row)[-2:]
            row[first], row[second] = row[second], row[first]
        return answers

    rung = compare("a → b", reference, swapped, images, max_batch_size=8, tolerance=1)
    assert (rung.top1_agreement, rung.top5_agreement) == (0, 1)
