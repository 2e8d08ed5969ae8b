"""What a graph's outputs for heat-maps and features cost, asked for and not.

    PYTHONPATH=. .venv/bin/python bench/evidence.py [NAME …] [--int8] [--pairs 60] [--batch 1]

Each network is exported twice, with random weights: with these outputs and without. Both graphs run
in ONNX Runtime on one thread, in turns, and the ratio of each pair of CPU times counts: the median
with a 95 % interval of the median. "all computed" is the cost in a runtime that computes outputs
which nobody asked for, as TensorRT and Triton's own backends do.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort
from torch import Tensor, nn

from bench.ratios import median
from export.catalog import INPUT, PROBABILITIES, Network, find
from export.conversion.to_int8 import to_int8
from export.conversion.to_onnx import ServedNetwork, to_onnx
from export.samples.images import Pixels, samples

NAMES = ("resnet50", "lenet5")
CALIBRATION_IMAGES = 16
WARM_UP = 5


class Untapped(nn.Module):
    """The network, of which nothing is read but its logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits


def export_both(network: Network, folder: Path, *, int8: bool) -> tuple[Path, Path]:
    """Without and with the outputs."""
    module, paths = network.build(), []
    for name, exported in (("without", Untapped(module)), ("with", module)):
        path = folder / f"{name}.onnx"
        served = ServedNetwork(
            exported, network.mean, network.std, "fp32", with_layers=network.reads_digits
        )
        to_onnx(served, network.size, len(network.labels()), path)
        if int8:
            images = samples(network, CALIBRATION_IMAGES, seed=1).pixels
            to_int8(path, folder / f"{name}-int8.onnx", images, "cpu")
            path = folder / f"{name}-int8.onnx"
        paths.append(path)
    return paths[0], paths[1]


def run(path: Path, images: Pixels, *, all_computed: bool, wanted: str = "") -> Callable[[], None]:
    """One inference; `wanted` is the beginning of the names of further outputs."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [PROBABILITIES]
    if wanted:
        further = [output.name for output in session.get_outputs()]
        names += [name for name in further if name.startswith(wanted)]
    run_options = ort.RunOptions()
    run_options.only_execute_path_to_fetches = not all_computed
    return lambda: session.run(names, {INPUT: images}, run_options)


def cpu_s(call: Callable[[], None]) -> float:
    started_s = time.process_time()
    call()
    return time.process_time() - started_s


def compare(before: Callable[[], None], after: Callable[[], None], pairs: int) -> str:
    """How many times as long `after` takes, and how sure that is."""
    for _ in range(WARM_UP):
        before()
        after()
    ratios = []
    for number in range(pairs):
        first, second = (before, after) if number % 2 else (after, before)
        one, other = cpu_s(first), cpu_s(second)
        ratios.append(other / one if number % 2 else one / other)
    return str(median(ratios))


def measure(name: str, pairs: int, batch: int, *, int8: bool) -> None:
    network = find(name)
    images = samples(network, batch, seed=2).pixels
    with tempfile.TemporaryDirectory() as folder:
        without, with_outputs = export_both(network, Path(folder), int8=int8)
        before = run(without, images, all_computed=True)
        calls = {
            "not asked for": run(with_outputs, images, all_computed=False),
            "all computed": run(with_outputs, images, all_computed=True),
        }
        outputs = [node.name for node in ort.InferenceSession(with_outputs).get_outputs()]
        for kind in ("heatmap", "features", "layer_"):
            if any(output.startswith(kind) for output in outputs):
                calls[kind.strip("_")] = run(with_outputs, images, all_computed=False, wanted=kind)
        for label, after in calls.items():
            precision = "int8" if int8 else "fp32"
            ratio = compare(before, after, pairs)
            print(f"| {name} | {precision} | {batch} | {label} | {ratio} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--batch", type=int, default=1)
    arguments = parser.parse_args()
    for name in arguments.names:
        measure(name, arguments.pairs, arguments.batch, int8=arguments.int8)


if __name__ == "__main__":
    main()
