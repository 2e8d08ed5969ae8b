"""A model that fails on one picture, or is withdrawn, affects no other model."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tritonclient.grpc import model_config_pb2

from convoy import Client
from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc
from server.preprocessing import prepare
from server.preprocessing.decode import decode
from server.runners.base import parse_facts
from tests.conftest import RUNNERS, RunningGateway, need_runner, serving
from tests.end_to_end.load import ask, load, nothing_leaks, read_holdings
from tests.loopback import wait_for

Note = Callable[..., None]
Pixels = npt.NDArray[np.uint8]

ROOT = Path(__file__).resolve().parents[2]

# In process, a crash of native code is a crash of the gateway.
on_triton = pytest.mark.parametrize("fragile", ["triton-local"], indirect=True)


@pytest.fixture(scope="module")
def poison(small_digit: bytes) -> bytes:
    """A seven that leans the other way: a valid picture that equals no golden image."""
    content = io.BytesIO()
    Image.open(io.BytesIO(small_digit)).rotate(12, fillcolor=255).save(content, "PNG")
    return content.getvalue()


@dataclass(frozen=True)
class Fragile:
    gateway: RunningGateway
    runner: str
    repository: Path


@pytest.fixture(scope="module", params=RUNNERS)
def fragile(
    request: pytest.FixtureRequest,
    shipped_lenet5: Path,
    small_digit: bytes,
    poison: bytes,
    tmp_path_factory: Any,
) -> Iterator[Fragile]:
    """Serves LeNet-5, a copy that fails on the poison and, on Triton, a copy that dies of it."""
    need_runner(request, request.param)
    folder = tmp_path_factory.mktemp(request.param)
    repository = folder / "model_repository"
    pixels = network_input(shipped_lenet5, poison)
    for name in ("lenet5", "failing", "withdrawn"):
        copytree(shipped_lenet5, repository / f"{name}.v1")
    make_failing(repository / "failing.v1" / "1" / "model.onnx", pixels)
    if request.param == "triton-local":
        copytree(shipped_lenet5, repository / "dying.v1")
        make_dying(repository / "dying.v1", pixels)
    options = [f"--repository={repository}", f"--runner={request.param}", "--unload-grace-s=0.5"]
    with serving(folder / "gateway.log", *options) as gateway:
        gateway.wait_until_ready()
        with load(gateway, small_digit):
            pass
        yield Fragile(gateway, request.param, repository)
        assert gateway.stop() == 0
        assert not list(Path("/dev/shm").glob(f"convoy-{gateway.process.pid}-*"))


def network_input(version: Path, image: bytes) -> Pixels:
    """Returns the input of a version's network for an image, as the gateway prepares it."""
    config = text_format.Parse(
        (version / "config.pbtxt").read_text(), model_config_pb2.ModelConfig()
    )
    picture = decode(image, max_bytes=1 << 20, max_pixels=1 << 20).pixels
    return prepare(picture, parse_facts(config).preprocessing)


def make_failing(model_path: Path, poison: Pixels) -> None:
    """Adds nodes to the network in which ONNX Runtime fails on the poison.

    They look up row 0 of a table of one row; for an image with the poison's sum of pixels, row 1.
    """
    model = onnx.load(model_path)
    total = np.array([[int(poison.astype(np.int64).sum())]], np.int64)
    constants: dict[str, npt.NDArray[Any]] = {
        "table": np.zeros(1, np.float32),
        "total": total,
        "axes": np.array([1, 2, 3]),
        "one": np.array([1]),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["wide"], to=TensorProto.INT64),
        helper.make_node("ReduceSum", ["wide", "axes"], ["sums"], keepdims=0),
        helper.make_node("Unsqueeze", ["sums", "one"], ["column"]),
        helper.make_node("Equal", ["column", "total"], ["is_poison"]),
        helper.make_node("Cast", ["is_poison"], ["row"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "row"], ["nothing"]),
        helper.make_node("Add", ["valid", "nothing"], ["probabilities"]),
    ]
    for node in model.graph.node:
        node.output[:] = ["valid" if name == "probabilities" else name for name in node.output]
    for name, value in constants.items():
        tensor = numpy_helper.from_array(value, f"poison_{name}")
        model.graph.initializer.append(tensor)
    for node in nodes:
        node.input[:] = [f"poison_{name}" if name in constants else name for name in node.input]
    model.graph.node.extend(nodes)
    onnx.save(model, model_path)


def make_dying(version: Path, poison: Pixels) -> None:
    """Gives the version a backend that exits on the poison, like a fault of native code."""
    source = (ROOT / "server/triton_backends/onnxruntime/model.py").read_text()
    digest = hashlib.sha256(poison.tobytes()).hexdigest()
    (version / "1" / "model.py").write_text(f"""{source}

import hashlib, os

class TritonPythonModel(TritonPythonModel):
    def execute(self, requests):
        for request in requests:
            for image in _array(request, "image"):
                if hashlib.sha256(image.tobytes()).hexdigest() == "{digest}":
                    os.abort()
        return super().execute(requests)
""")
    config_path = version / "config.pbtxt"
    config_path.write_text(config_path.read_text().replace("onnxruntime", "python"))


def test_a_picture_that_a_model_fails_on_fails_alone(
    fragile: Fragile, small_digit: bytes, poison: bytes, note: Note
) -> None:
    """Others are in the same batches, and all of them are answered."""
    gateway = fragile.gateway
    with (
        nothing_leaks(gateway),
        load(gateway, small_digit, model="failing") as running,
        Client(gateway.grpc) as over_grpc,
        Client(gateway.http) as over_http,
    ):
        began_s = time.monotonic()
        for client in (over_grpc, over_http):
            assert ask(client, poison) == "7"
            assert ask(client, poison, "failing") == "INFERENCE_FAILED"
        batch = [small_digit, poison, small_digit, small_digit]
        for _ in range(5):
            answers = answers_to(gateway, batch)
            assert answers == ["response", "error", "response", "response"]
        wait_for(lambda: running.is_served(began_s))
    assert running.seen() == set()
    note("a model fails on one picture, other pictures", fragile.runner, running, began_s)


def answers_to(gateway: RunningGateway, images: list[bytes]) -> list[str]:
    """Returns the result of each image of a batch: "response" or "error"."""
    requests = [
        pb.ClassifyRequest(model="failing", image=pb.Image(content=image)) for image in images
    ]
    with grpc.insecure_channel(gateway.grpc) as channel:
        stub = classifier_pb2_grpc.ImageClassifierStub(channel)
        answer = stub.BatchClassify(pb.BatchClassifyRequest(requests=requests), timeout=20)
    return [result.WhichOneof("result") for result in answer.results]


@on_triton
def test_a_backend_that_dies_of_a_picture_is_back_soon_and_other_models_notice_nothing(
    fragile: Fragile, small_digit: bytes, poison: bytes, note: Note
) -> None:
    gateway = fragile.gateway
    with (
        nothing_leaks(gateway, left_regions=1),
        load(gateway, small_digit, clients_per_wire=1) as beside,
        load(gateway, small_digit, model="dying", clients_per_wire=1) as running,
        Client(gateway.grpc) as client,
    ):
        died_s = time.monotonic()
        assert ask(client, poison, "dying") == "RUNNER_UNAVAILABLE"
        wait_for(lambda: running.is_served(died_s + 1))
    assert running.seen() <= {"RUNNER_UNAVAILABLE", "MODEL_NOT_READY"}
    assert beside.seen() == set()
    note("a backend dies of one picture, its model", fragile.runner, running, died_s)
    note("a backend dies of one picture, other models", fragile.runner, beside, died_s)


@on_triton
@pytest.mark.slow
def test_what_dead_backends_leave_in_a_tritonserver_ends_with_it(
    fragile: Fragile, small_digit: bytes, poison: bytes
) -> None:
    gateway, pid = fragile.gateway, fragile.gateway.process.pid
    regions = read_holdings(pid).shared_memory
    with Client(gateway.grpc) as client:
        for _ in range(20):
            assert ask(client, poison, "dying") == "RUNNER_UNAVAILABLE"
            wait_for(lambda: ask(client, small_digit, "dying") == "7")
    gateway.wait_for(lambda: "20 backend processes died; restarting tritonserver" in gateway.log())
    wait_for(lambda: read_holdings(pid).shared_memory <= regions)


def test_a_model_that_is_withdrawn_under_load_and_restored(
    fragile: Fragile, small_digit: bytes, note: Note
) -> None:
    gateway = fragile.gateway
    folder = fragile.repository / "withdrawn.v1"
    with nothing_leaks(gateway), load(gateway, small_digit, model="withdrawn") as running:
        withdrawn_s = time.monotonic()
        folder.rename(folder.with_suffix(".v1.withdrawn"))
        wait_for(lambda: "MODEL_NOT_FOUND" in running.seen())
        folder.with_suffix(".v1.withdrawn").rename(folder)
        wait_for(lambda: running.is_served(withdrawn_s + 1))
    assert running.seen() <= {"MODEL_NOT_FOUND", "MODEL_NOT_READY"}
    note("model withdrawn, and restored", fragile.runner, running, withdrawn_s)
