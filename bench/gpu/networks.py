"""How fast the networks are on this GPU: in ONNX Runtime, and in PyTorch for scale.

    PYTHONPATH=. python bench/gpu/networks.py graphs DIR [NETWORK…]     # export, needs no GPU
    PYTHONPATH=. python bench/gpu/networks.py measure DIR [NETWORK…]
    PYTHONPATH=. python bench/gpu/networks.py options DIR [NETWORK…]

Random, calibrated weights. `measure` prints images a second, from the median of the runs, and the
median and the 99th percentile of one batch in ms: "run" takes pixels from the host and answers to
it, as the gateway does; "bound" and "eager" have them on the GPU. `options` compares cuDNN's
searches and layouts: the first answer to each new batch size, that to a batch of 8 after one of 7
when both are known, and the speed where the size stays.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from export.catalog import BATCH_SIZE, INPUT, PROBABILITIES, find
from export.checkpoints.load import load
from export.conversion.to_onnx import Precision, ServedNetwork, to_onnx
from export.samples.images import PROOF_SEED, Pixels, samples
from server.runners.onnx_session import CPU, CUDA, CUDA_OPTIONS, preload_cuda

NETWORKS = ("alexnet", "nin", "googlenet", "resnet18", "resnet50", "resnet152", "vgg16")
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
BATCHES = (1, 8, 32, 128)
WARM_UP, MIN_ROUNDS, MIN_S = 5, 20, 0.4
EXPORTS_AT_ONCE = 3

OPTIONS = [
    {"cudnn_conv_algo_search": search, "prefer_nhwc": nhwc}
    for nhwc in ("0", "1")
    for search in ("HEURISTIC", "EXHAUSTIVE", "DEFAULT")
]


# ---------------------------------------------------------------- graphs


def write_graphs(names: list[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(EXPORTS_AT_ONCE, get_context("spawn")) as processes:
        for line in processes.map(write_graph, names, [folder] * len(names)):
            print(line, flush=True)


def write_graph(name: str, folder: Path) -> str:
    started_s = time.perf_counter()
    network = find(name)
    module = load(network, "random").network
    torch.save(module.state_dict(), folder / f"{name}.pth")
    for precision in PRECISIONS:
        servable = ServedNetwork(module, network.mean, network.std, precision)
        path = folder / f"{name}.{precision}.onnx"
        to_onnx(servable, network.size, len(network.labels()), path)
    return f"{name}: exported in {time.perf_counter() - started_s:.0f} s"


# ---------------------------------------------------------------- measuring


def time_calls(call: Callable[[], object]) -> list[float]:
    for _ in range(WARM_UP):
        call()
    durations_s: list[float] = []
    while len(durations_s) < MIN_ROUNDS or sum(durations_s) < MIN_S:
        started_s = time.perf_counter()
        call()
        durations_s.append(time.perf_counter() - started_s)
    return durations_s


def figures(durations_s: list[float], batch: int) -> dict[str, float]:
    p50_s = statistics.median(durations_s)
    p99_s = float(np.percentile(durations_s, 99))
    return {
        "images_per_s": round(batch / p50_s),
        "p50_ms": round(p50_s * 1e3, 3),
        "p99_ms": round(p99_s * 1e3, 3),
    }


def open_session(path: Path, options: dict[str, str]) -> ort.InferenceSession:
    preload_cuda()
    quiet = ort.SessionOptions()
    quiet.log_severity_level = 3
    ort.set_default_logger_severity(4)  # as the gateway does
    session = ort.InferenceSession(
        path, quiet, providers=[(CUDA, {**CUDA_OPTIONS, **options}), CPU], enable_fallback=0
    )
    if CUDA not in session.get_providers():
        raise SystemExit("ONNX Runtime does not run on a GPU here")
    return session


def run(session: ort.InferenceSession, images: Pixels) -> Callable[[], object]:
    return lambda: session.run([PROBABILITIES, BATCH_SIZE], {INPUT: images})


def bound(session: ort.InferenceSession, images: Pixels) -> Callable[[], object]:
    binding = session.io_binding()
    binding.bind_ortvalue_input(INPUT, ort.OrtValue.ortvalue_from_numpy(images, "cuda", 0))
    binding.bind_output(PROBABILITIES, "cuda")
    binding.bind_output(BATCH_SIZE, "cpu")

    def call() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return call


def eager(servable: ServedNetwork, images: Pixels) -> Callable[[], object]:
    on_gpu = torch.from_numpy(images).cuda()

    def call() -> None:
        with torch.inference_mode():
            servable(on_gpu)
        torch.cuda.synchronize()

    return call


def measure(names: list[str], folder: Path) -> Iterator[dict[str, Any]]:
    # As in CUDA_OPTIONS: fp32 means fp32.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for name in names:
        network = find(name)
        images = samples(network, max(BATCHES), PROOF_SEED).pixels
        module = network.build()
        module.load_state_dict(torch.load(folder / f"{name}.pth"))
        for precision in PRECISIONS:
            session = open_session(folder / f"{name}.{precision}.onnx", {})
            servable = ServedNetwork(module, network.mean, network.std, precision).cuda().eval()
            for batch in BATCHES:
                some = images[:batch]
                ways = {
                    "run": run(session, some),
                    "bound": bound(session, some),
                    "eager": eager(servable, some),
                }
                for way, call in ways.items():
                    numbers = figures(time_calls(call), batch)
                    row = {"network": name, "precision": precision, "way": way, "batch": batch}
                    yield row | numbers
            del session, servable
            torch.cuda.empty_cache()


def compare_options(names: list[str], folder: Path) -> Iterator[dict[str, Any]]:
    for name in names:
        images = samples(find(name), max(BATCHES), PROOF_SEED).pixels
        for precision in PRECISIONS:
            for options in OPTIONS:
                started_s = time.perf_counter()
                session = open_session(folder / f"{name}.{precision}.onnx", options)
                opened_s = time.perf_counter() - started_s
                changed_s: list[float] = []
                first_ms = [round(first_answer_s(session, images[:n]) * 1e3) for n in range(1, 9)]
                for _ in range(3):
                    first_answer_s(session, images[:7])
                    changed_s.append(first_answer_s(session, images[:8]))
                speeds = {
                    batch: figures(time_calls(run(session, images[:batch])), batch)
                    for batch in (1, 8, 32)
                }
                yield {
                    "network": name,
                    "precision": precision,
                    "options": "-".join(options.values()),
                    "opened_s": round(opened_s, 2),
                    "first_ms": first_ms,  # at batch 1, 2, 3 to 8
                    "changed_ms": round(statistics.median(changed_s) * 1e3),  # 8 after 7, again
                    "images_per_s": {
                        batch: speed["images_per_s"] for batch, speed in speeds.items()
                    },
                }


def first_answer_s(session: ort.InferenceSession, images: Pixels) -> float:
    started_s = time.perf_counter()
    run(session, images)()
    return time.perf_counter() - started_s


# ---------------------------------------------------------------- the command


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("graphs", "measure", "options"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--json", type=Path, help="where each row is also written, one a line")
    arguments = parser.parse_args()
    if arguments.what == "graphs":
        write_graphs(arguments.networks, arguments.folder)
        return
    print(torch.cuda.get_device_name(), "onnxruntime", ort.__version__, "torch", torch.__version__)
    rows = {"measure": measure, "options": compare_options}[arguments.what]
    for row in rows(arguments.networks, arguments.folder):
        print(*row.values(), flush=True)
        if arguments.json:
            with arguments.json.open("a") as lines:
                lines.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
