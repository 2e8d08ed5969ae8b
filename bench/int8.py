"""Measures how fast the int8 recipes are in ONNX Runtime, compared with fp32, in one run.

    PYTHONPATH=. .venv/bin/python bench/int8.py [resnet50] [--runs 12]

Random weights, one thread, the graphs in turn. Prints the median milliseconds per image, and the
speed in multiples of fp32's.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import onnxruntime

from export.catalog import INPUT, Network, find
from export.checkpoints.load import load
from export.conversion import to_int8
from export.conversion.to_onnx import ServedNetwork, to_onnx
from export.samples.images import CALIBRATION_SEED, Pixels, samples

CALIBRATION_IMAGES = 16
BATCHES = (1, 8)


def graphs(network: Network, images: Pixels, folder: Path) -> dict[str, Path]:
    """Writes the graph of each recipe, fp32 first, and one for CPUs with signed activations."""
    fp32 = folder / "fp32.onnx"
    module = load(network, "random").network
    classes = len(network.labels())
    to_onnx(ServedNetwork(module, network.mean, network.std, "fp32"), network.size, classes, fp32)
    paths = {"fp32": fp32}
    for_cpu = to_int8.RECIPES["cpu"]
    for name, recipe in {
        "int8 for cpu": for_cpu,
        "the same, signed": dataclasses.replace(for_cpu, signed=True),
        "int8 for tensorrt": to_int8.RECIPES["tensorrt"],
    }.items():
        to_int8.RECIPES["cpu"] = recipe
        paths[name] = folder / f"{name}.onnx"
        to_int8.to_int8(fp32, paths[name], images, "cpu")
    return paths


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def measure(sessions: dict[str, onnxruntime.InferenceSession], images: Pixels, runs: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(runs):
        for name, graph in sessions.items():
            started_s = time.perf_counter()
            graph.run(None, {INPUT: images})
            seconds[name].append(time.perf_counter() - started_s)
    medians = {name: statistics.median(times) / len(images) for name, times in seconds.items()}
    for name, median_s in medians.items():
        times = medians["fp32"] / median_s
        print(f"batch {len(images)}  {name:18} {median_s * 1e3:6.1f} ms  {times:.2f} times fp32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("network", nargs="?", default="resnet50")
    parser.add_argument("--runs", type=int, default=12)
    arguments = parser.parse_args()
    network = find(arguments.network)
    images = samples(network, CALIBRATION_IMAGES, CALIBRATION_SEED).pixels
    with tempfile.TemporaryDirectory() as folder:
        paths = graphs(network, images, Path(folder))
        sessions = {name: session(path) for name, path in paths.items()}
    for size in BATCHES:
        measure(sessions, images[:size], arguments.runs)


if __name__ == "__main__":
    main()
