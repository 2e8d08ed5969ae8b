"""How fast a network is on this machine: its ONNX graph in ONNX Runtime, with random weights.

Random weights cost what trained ones cost. They are the seeded, calibrated ones of
`--weights random`, so that no activation dies or overflows, which could be quicker or slower.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from export.catalog import Network
from export.progress import SILENT, Reporter

if TYPE_CHECKING:
    from export.samples.images import Pixels

STAGES = 3  # that are reported
WARM_UP = 2  # runs that are not measured
MIN_S = 2.0  # of measuring
MIN_ROUNDS = 5  # runs


@dataclass(frozen=True)
class Speed:
    batch: int  # images that go through together
    p50_ms: float  # of one batch
    images_per_s: float


def measure(
    network: Network, reporter: Reporter = SILENT, shortest_s: float = MIN_S
) -> list[Speed]:
    """One image at a time, and the most that the network is served with; in fp32."""
    from export.checkpoints.load import load
    from export.conversion.to_onnx import ServedNetwork, to_onnx
    from export.proof.parity import onnx_answer
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
        answer = onnx_answer(path)
        images = samples(network, network.max_batch_size, PROOF_SEED).pixels
        return [_speed(answer, images[:batch], shortest_s) for batch in (1, network.max_batch_size)]


def _speed(answer: Callable[[Pixels], object], images: Pixels, shortest_s: float) -> Speed:
    for _ in range(WARM_UP):
        answer(images)
    durations_s: list[float] = []
    while len(durations_s) < MIN_ROUNDS or sum(durations_s) < shortest_s:
        begin_s = time.perf_counter()
        answer(images)
        durations_s.append(time.perf_counter() - begin_s)
    return Speed(
        batch=len(images),
        p50_ms=1000 * statistics.median(durations_s),
        images_per_s=len(images) * len(durations_s) / sum(durations_s),
    )
