"""From an image to a label over both wires and both runners, without mocks."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from tritonclient.grpc import InferenceServerClient

from convoy import Classification, Client, errors
from export.build import run
from export.catalog import CATALOG, find
from export.checkpoints.load import load
from export.options import Options
from export.samples.drawn_digits import drawn_digits

PHOTOS = ("china.jpg", "flower.jpg")
# What the build allows between two runtimes of the same fp32 network.
TOLERANCE = find("resnet18").fp32_tolerance
# Of photos that are resized: the gateway's values may be 1 of 255 off Pillow's.
RESIZED_TOLERANCE = 5e-3

pytestmark = pytest.mark.xdist_group("large-gateway")


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, gateway: Any) -> Any:
    with Client(getattr(gateway, request.param), timeout_s=60) as client:
        yield client


def test_a_digit_is_read(client: Client, digit: bytes) -> None:
    answer = client.classify(digit, model="lenet5")
    assert (answer.best.label, answer.weights) == ("7", "digits")


def test_a_photo_is_classified_and_random_weights_are_declared(
    client: Client, photos: dict[str, bytes]
) -> None:
    answers = [client.classify(photos[name], model="resnet18") for name in PHOTOS]
    assert answers[0].best.index != answers[1].best.index, "two photos, two answers"
    assert [answer.weights for answer in answers] == ["random", "random"]
    assert all(answer.best.id.startswith("n") for answer in answers), "synsets of ImageNet"
    assert client.model("resnet18").manifest.weights.source == "random"


@pytest.fixture(scope="module")
def resnet18() -> torch.nn.Module:
    return load(find("resnet18"), "random").network


def by_pytorch(network: torch.nn.Module, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Returns the probabilities of one image, H×W×3, without the code of the gateway."""
    row = find("resnet18")
    normalised = (torch.from_numpy(pixels) / 255 - torch.tensor(row.mean)) / torch.tensor(row.std)
    with torch.inference_mode():
        logits = network(normalised.permute(2, 0, 1)[None])
    probabilities: npt.NDArray[np.float32] = logits.softmax(1)[0].numpy()
    return probabilities


def as_published(path: Path) -> npt.NDArray[np.uint8]:
    """Applies torchvision's transform for the V1 weights: shorter side to 256, centre 224×224."""
    with Image.open(path) as image:
        assert image.size == (640, 427)
        resized = image.resize((int(256 * 640 / 427), 256), Image.Resampling.BILINEAR)
    left, top = round((resized.width - 224) / 2), round((256 - 224) / 2)
    return np.array(resized.crop((left, top, left + 224, top + 224)))


def largest_difference(answer: Classification, expected: npt.NDArray[np.float32]) -> float:
    served = np.zeros(1000, np.float32)
    for class_ in answer.classes:
        served[class_.index] = class_.score
    return float(np.abs(served - expected).max())


def test_the_served_probabilities_are_pytorchs(
    client: Client, photos: dict[str, bytes], resnet18: torch.nn.Module, tmp_path: Path
) -> None:
    for name in PHOTOS:
        path = tmp_path / name
        path.write_bytes(photos[name])
        pixels = as_published(path)
        answer = client.classify(path, model="resnet18", top_k=1000)
        assert largest_difference(answer, by_pytorch(resnet18, pixels)) <= RESIZED_TOLERANCE
        swapped = np.ascontiguousarray(pixels[:, :, ::-1])
        assert largest_difference(answer, by_pytorch(resnet18, swapped)) > 5 * RESIZED_TOLERANCE


def statistics(gateway: Any) -> tuple[int, ...]:
    """Returns Triton's count of ResNet-18's inferences and executions; empty without a Triton."""
    for path in Path("/proc", str(gateway.process.pid), "task").glob("*/children"):
        for child in path.read_text().split():
            arguments = Path("/proc", child, "cmdline").read_text()
            if port := re.search(r"--grpc-port=(\d+)", arguments):
                with InferenceServerClient(f"127.0.0.1:{port[1]}") as triton:
                    (model,) = triton.get_inference_statistics("resnet18.v1").model_stats
                return model.inference_count, model.execution_count
    return ()


def settled_statistics(gateway: Any) -> tuple[int, ...]:
    """Reads until the counts stay: Triton counts an execution a moment after it has answered."""
    before: tuple[int, ...] = ()
    while (now := statistics(gateway)) != before:
        before = now
        time.sleep(0.5)
    return now


def test_requests_of_different_clients_are_batched(gateway: Any, photos: dict[str, bytes]) -> None:
    """Sixteen concurrent clients cause at most half as many executions as inferences."""
    with Client(gateway.grpc, timeout_s=60) as client:
        alone = {name: client.classify(photos[name], model="resnet18") for name in PHOTOS}
    batched: list[tuple[str, Classification]] = []
    start = threading.Barrier(16)
    before = settled_statistics(gateway)

    def ask(name: str) -> None:
        with Client(gateway.grpc, timeout_s=60) as client:
            start.wait()
            batched.append((name, client.classify(photos[name], model="resnet18")))

    threads = [threading.Thread(target=ask, args=(PHOTOS[number % 2],)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(batched) == 16
    # Each of n images in a batch reports n: they are one execution.
    executions = sum(1 / answer.batch_size for _, answer in batched)
    assert executions <= 8, Counter(answer.batch_size for _, answer in batched)
    if before:
        inferences, executions_there = np.subtract(settled_statistics(gateway), before)
        assert (inferences, executions_there) == (16, round(executions))
    for name, answer in batched:
        scores = [class_.score for class_ in answer.classes]
        assert [class_.index for class_ in answer.classes] == [
            class_.index for class_ in alone[name].classes
        ]
        assert np.allclose(scores, [class_.score for class_ in alone[name].classes], atol=TOLERANCE)


def test_a_corrupt_file_is_a_clear_error_on_both_wires_and_in_the_command(
    gateway: Any, client: Client, photos: dict[str, bytes], tmp_path: Path
) -> None:
    truncated = photos["china.jpg"][:50_000]
    with pytest.raises(errors.BadImage) as failure:
        client.classify(truncated, model="resnet18")
    assert failure.value.reason == "IMAGE_DECODE_FAILED"
    path = tmp_path / "truncated.jpg"
    path.write_bytes(truncated)
    command = [sys.executable, "-m", "convoy.cli", "classify", str(path), "--model", "resnet18"]
    done = subprocess.run(
        [*command, "--server", gateway.grpc], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1 and "truncated.jpg" in done.stderr


SHIPPED = [name for name, network in CATALOG.items() if network.weights == "digits"]


def share_of_drawn_digits_read(gateway: Any, model: str, count: int) -> float:
    """Returns the share of the 360 held-out digits, in pen and marker, in both contrasts."""
    right = total = 0
    with Client(gateway.grpc) as client:
        for image, label in islice(drawn_digits(seed=2026), count):
            total += 1
            with contextlib.suppress(errors.BadImage):
                right += client.classify(image, model=model).best.label == str(label)
    assert total == count
    return right / total


@pytest.mark.parametrize("name", SHIPPED)
def test_every_network_that_ships_reads_a_digit(
    shipped_gateway: Any, name: str, digit: bytes
) -> None:
    with Client(shipped_gateway.grpc) as client:
        answer = client.classify(digit, model=name)
        accuracy = client.model(name).manifest.accuracy
    assert (answer.best.label, answer.weights) == ("7", "digits")
    bounds = {
        "fifth of scikit-learn's": 0.98,
        "those held-out digits drawn": 0.95,
        "fifth of the MNIST digits": 0.98,
    }
    for measured, least in bounds.items():
        (entry,) = (entry for entry in accuracy if measured in entry.measured)
        assert entry.correct / entry.total >= least


@pytest.mark.parametrize(
    ("name", "count"),
    [("lenet5", 180), *[pytest.param(name, 720, marks=pytest.mark.slow) for name in SHIPPED]],
)
def test_digits_as_people_draw_them_are_read(shipped_gateway: Any, name: str, count: int) -> None:
    assert share_of_drawn_digits_read(shipped_gateway, name, count) >= 0.95


def test_a_build_appears_in_the_running_server(serve: Any, repository: Path, digit: bytes) -> None:
    gateway = serve(f"--repository={repository}")
    gateway.wait_until_ready()
    run(Options(find("lenet5"), "fp16", "digits", 0, repository))
    url = f"{gateway.http}/v1/models/lenet5:classify"
    gateway.wait_for(lambda: httpx.post(url, content=digit).json()["version"] == "2")
    answer = httpx.post(url, content=digit).json()
    assert (answer["classes"][0]["label"], answer["served"]["precision"]) == ("7", "fp16")
