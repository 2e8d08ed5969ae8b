"""A batch that is filled up to the size that a session is for, as on a GPU; here on the CPU.

The GPU's own tests are in test_onnx_session_gpu.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from server.runners.onnx_session import OnnxModel, gpu_batch_sizes, on_cpu

MakeVersion = Callable[[Path], None]


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_images_of_a_batch_that_is_filled_up_get_their_own_answers(
    count: int, tmp_path: Path, make_version: MakeVersion
) -> None:
    make_version(tmp_path / "tiny.v1")
    network = on_cpu(tmp_path / "tiny.v1" / "1" / "model.onnx", ort.SessionOptions())
    filling = OnnxModel("cpu", {1: network.any_session, 8: network.any_session})
    images = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 1), np.uint8)
    np.testing.assert_allclose(
        filling.probabilities(images), network.probabilities(images), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [(1, [1]), (4, [1, 4]), (8, [1, 8]), (64, [1, 8, 64]), (100, [1, 8, 64, 100])],
)
def test_a_batch_on_a_gpu_is_padded_to_at_most_eight_times_its_size(
    largest: int, sizes: list[int]
) -> None:
    assert gpu_batch_sizes(largest) == sizes
