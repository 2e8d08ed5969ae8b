"""Measures the speed of a network's ONNX graph on this machine, with random weights.

Random weights cost as much as trained ones. They are those of `--weights random`, whose
data-dependent initialisation keeps activations from vanishing or overflowing, which could be faster
or slower.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from export.catalog import INPUT, Network
from export.progress import SILENT, Reporter

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from export.samples.images import Pixels

STAGES = 3  # reported ones
WARM_UP = 2  # runs before the measured ones
MIN_S = 2.0  # of measuring
MIN_ROUNDS = 5  # runs


@dataclass(frozen=True)
class Speed:
    batch: int  # images per run
    p50_ms: float  # of one batch
    images_per_s: float


def measure(network: Network, reporter: Reporter = SILENT, min_s: float = MIN_S) -> list[Speed]:
    """Measures one image, and the maximum batch size of the network, in fp32."""
    import onnxruntime

    from export.checkpoints.load import load
    from export.conversion.to_onnx import ServedNetwork, to_onnx
    from export.samples.images import PROOF_SEED, samples

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{network.name}.onnx")
        reporter.step(f"{network.name}: weights")
        module = load(network, "random").network
        reporter.step(f"{network.name}: export")
        servable = ServedNetwork(module, network.mean, network.std, "fp32")
        to_onnx(servable, network.size, len(network.labels()), path)
        del module, servable  # the large ones would be in memory twice
        reporter.step(f"{network.name}: measuring")
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        images = samples(network, network.max_batch_size, PROOF_SEED).pixels
        batches = (images[:batch] for batch in (1, network.max_batch_size))
        return [_speed(session, batch, min_s) for batch in batches]


def _speed(session: InferenceSession, images: Pixels, min_s: float) -> Speed:
    for _ in range(WARM_UP):
        session.run(None, {INPUT: images})
    durations_s: list[float] = []
    while len(durations_s) < MIN_ROUNDS or sum(durations_s) < min_s:
        begin_s = time.perf_counter()
        session.run(None, {INPUT: images})
        durations_s.append(time.perf_counter() - begin_s)
    return Speed(
        batch=len(images),
        p50_ms=1000 * statistics.median(durations_s),
        images_per_s=len(images) * len(durations_s) / sum(durations_s),
    )
