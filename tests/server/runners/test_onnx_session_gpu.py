"""Versions on a GPU (`-m gpu`, with onnxruntime-gpu): the same answers, and honest about where.

The CPU's answers are the reference; `export/` proves those against PyTorch's.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime as ort
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export.catalog import find
from export.conversion.to_onnx import Precision
from export.samples.images import PROOF_SEED, samples
from server.runners.in_process import InProcessRunner
from server.runners.onnx_session import CUDA, open_onnx_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        CUDA not in ort.get_available_providers(), reason="needs the package onnxruntime-gpu"
    ),
]

Serve = Callable[..., Any]
MakeVersion = Callable[[Path], None]
Graph = Callable[[str, Precision], Path]

OPTIONS = ort.SessionOptions()
LARGEST = 16


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """A network's graph in a precision, with random weights."""
    from export.checkpoints.load import load
    from export.conversion.to_onnx import ServedNetwork, to_onnx

    folder = tmp_path_factory.mktemp("graphs")
    weighted = functools.cache(lambda name: load(find(name), "random").network)

    @functools.cache
    def write(name: str, precision: Precision) -> Path:
        network, path = find(name), folder / f"{name}-{precision}.onnx"
        servable = ServedNetwork(weighted(name), network.mean, network.std, precision)
        to_onnx(servable, network.size, len(network.labels()), path)
        return path

    return write


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["alexnet", "nin", "googlenet", "resnet18"])
def test_the_gpu_answers_as_the_cpu_does(name: str, precision: Precision, graph: Graph) -> None:
    network, path = find(name), graph(name, precision)
    images = samples(network, LARGEST, PROOF_SEED).pixels
    expected = open_onnx_model(path, OPTIONS, LARGEST, may_use_gpu=False)
    found = open_onnx_model(path, OPTIONS, LARGEST, may_use_gpu=True)
    assert (expected.device, found.device) == ("cpu", "gpu")
    answers, allowed = expected.probabilities(images), network.tolerance(precision, is_random=True)
    for size in (1, 2, 3, 8, 9, LARGEST):
        difference = np.abs(found.probabilities(images[:size]) - answers[:size]).max()
        print(f"{name} {precision} batch {size}: {difference:.1e}")
        assert difference <= allowed, f"in a batch of {size}"


def test_no_batch_size_waits_for_a_plan(graph: Graph) -> None:
    """cuDNN's takes 0.1 s and more, each time that another size comes."""
    network = open_onnx_model(graph("resnet18", "fp16"), OPTIONS, LARGEST, may_use_gpu=True)
    images = samples(find("resnet18"), LARGEST, PROOF_SEED).pixels
    seconds = []
    for size in (1, 2, 3, 8, LARGEST, 7, 1, 5):
        started_s = time.perf_counter()
        network.probabilities(images[:size])
        seconds.append(time.perf_counter() - started_s)
    print("ms:", [f"{1e3 * second:.1f}" for second in seconds])
    assert max(seconds) < 0.05


@pytest.mark.parametrize("sizes", [(2, 3, 8), (9, 12, LARGEST)])  # one session's each
def test_an_answer_does_not_depend_on_how_many_ride_along(
    sizes: tuple[int, ...], graph: Graph
) -> None:
    network = open_onnx_model(graph("googlenet", "fp16"), OPTIONS, LARGEST, may_use_gpu=True)
    images = samples(find("googlenet"), LARGEST, PROOF_SEED).pixels
    whole = network.probabilities(images[: sizes[-1]])
    for size in sizes:
        assert np.array_equal(network.probabilities(images[:size]), whole[:size])


@pytest.mark.parametrize(("kind", "device"), [("AUTO", "gpu"), ("GPU", "gpu"), ("CPU", "cpu")])
async def test_a_version_runs_where_its_instance_group_says(
    kind: str, device: str, tmp_path: Path, make_version: MakeVersion
) -> None:
    make_version(tmp_path / "tiny.v1")
    path = tmp_path / "tiny.v1" / "config.pbtxt"
    config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    config.instance_group[0].kind = getattr(model_config_pb2.ModelInstanceGroup, f"KIND_{kind}")
    path.write_text(text_format.MessageToString(config))
    runner = InProcessRunner(tmp_path)
    try:
        assert (await runner.load("tiny.v1")).device == device
    finally:
        await runner.close()


@pytest.mark.parametrize(("shown_gpus", "device"), [(None, "gpu"), ("", "cpu")])
def test_every_answer_says_where_it_was_computed(
    shown_gpus: str | None, device: str, repository: Path, serve: Serve, digit: bytes
) -> None:
    """And the golden images, which were computed on a CPU, prove the version on either."""
    environment = {} if shown_gpus is None else {"CUDA_VISIBLE_DEVICES": shown_gpus}
    gateway = serve(f"--repository={repository}", environment=environment)
    gateway.wait_until_ready()
    answer = httpx.post(f"{gateway.http}/v1/models/lenet5:classify", content=digit).json()
    assert answer["classes"][0]["label"] == "7"
    assert answer["served"]["device"] == device
    assert ("runs on the CPU" in gateway.log()) == (device == "cpu"), gateway.log()
