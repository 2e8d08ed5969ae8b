"""Heat-maps, features, layers and inputs on both wires and both runners, beside PyTorch's own."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import numpy.typing as npt
import pytest
import torch
from filelock import FileLock
from PIL import Image
from sklearn.datasets import load_digits

from convoy import Classification, Client, errors
from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc
from export.architectures import resnet
from export.architectures.resnet import CifarResNet
from export.build import run
from export.catalog import Network, find
from export.checkpoints.load import load
from export.options import Options
from export.proof.evidence import cosine, torch_evidence

# Slow: resnet18, googlenet, nin and alexnet are built for it, some minutes on two cores.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("evidence")]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

RANDOM = ("resnet18", "nin", "googlenet", "alexnet")
TRAINED = ("lenet5", "resnet20_digits")
STROKES = "strokes"  # a network trained here, see `train_strokes`
ALL = ("INPUT", "HEATMAP", "FEATURES")


# ---------------------------------------------------------------- what is served


@pytest.fixture(scope="session")
def evidence_repository(session_path: Path) -> Path:
    path = session_path / "evidence" / "model_repository"
    with FileLock(session_path / "evidence.lock"):
        for name in RANDOM:
            run(Options(find(name), "fp32", "random", 0, path))
        for name in TRAINED:
            run(Options(find(name), "fp32", "digits", 0, path))
        build_strokes(session_path / "evidence", path)
    return path


@pytest.fixture(scope="module", params=["in-process", "triton-local"])
def evidence_gateway(
    request: pytest.FixtureRequest, evidence_repository: Path, serve_together: Any
) -> Any:
    if request.param == "triton-local":
        request.getfixturevalue("tritonserver")
    gateway = serve_together(f"--repository={evidence_repository}", f"--runner={request.param}")
    gateway.wait_until_ready(300)
    return gateway


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, evidence_gateway: Any) -> Iterator[Client]:
    with Client(getattr(evidence_gateway, request.param), timeout_s=120) as client:
        yield client


def build_strokes(folder: Path, repository: Path) -> None:
    """A network for photos of 32x32 with two classes, built as a user builds one of their own."""
    if (repository / f"{STROKES}.v1").exists():
        return
    torch.save(train_strokes().state_dict(), folder / "strokes.pth")
    (folder / "labels.txt").write_text("zero\none\n")
    resnet.strokes = functools.partial(CifarResNet, 8, channels=3)  # type: ignore[attr-defined]
    row = dataclasses.replace(find("nin_cifar10"), architecture="resnet:strokes")
    weights = str(folder / "strokes.pth")
    labels = folder / "labels.txt"
    options = Options(row, "fp32", weights, 0, repository, labels=labels, published_as=STROKES)
    run(options)


def train_strokes() -> CifarResNet:
    """One handwritten zero or one, anywhere in the picture."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    network = CifarResNet(8, channels=3, classes=2)
    row = find("nin_cifar10")
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (row.mean, row.std))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(120):
        classes = random.integers(2, size=32)
        places = random.integers(0, 18, size=(32, 2))
        pictures = [
            draw([(int(digit), int(x), int(y))], random)
            for digit, (x, y) in zip(classes, places, strict=True)
        ]
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255
        loss = torch.nn.functional.cross_entropy(
            network((pixels - mean) / std), torch.from_numpy(classes)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


@functools.cache
def handwritten(digit: int) -> Pixels:  # N×8×8
    data = load_digits()
    chosen: Pixels = (data.images[data.target == digit] * 15.9).astype(np.uint8)
    return chosen


def draw(objects: list[tuple[int, int, int]], random: np.random.Generator) -> Pixels:
    """A noisy picture, 32x32x3, with these digits of 14x14, each with its left and top."""
    picture = random.integers(0, 40, (32, 32, 3), dtype=np.uint8)
    for digit, left, top in objects:
        plane = handwritten(digit)[random.integers(len(handwritten(digit)))]
        large = np.asarray(Image.fromarray(plane).resize((14, 14), Image.Resampling.BILINEAR))
        place = picture[top : top + 14, left : left + 14]
        np.maximum(place, large[:, :, None], out=place)
    return picture


def png(pixels: Pixels) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


# ---------------------------------------------------------------- beside PyTorch


@functools.cache
def network_of(name: str) -> tuple[Network, torch.nn.Module]:
    row = find(name)
    return row, load(row, "digits" if name in TRAINED else "random").network


def seen(answer: Classification) -> Pixels:
    assert answer.input
    return answer.input.pixels


@pytest.mark.parametrize("name", ["resnet18", "nin", "googlenet", "resnet20_digits"])
def test_class_activation_maps_and_features_are_pytorchs(
    client: Client, name: str, digit: bytes, photos: dict[str, bytes]
) -> None:
    content = digit if name in TRAINED else photos["flower.jpg"]
    answer = client.classify(content, model=name, include=ALL)
    row, module = network_of(name)
    expected = torch_evidence(module, row.mean, row.std)(seen(answer)[np.newaxis])
    assert answer.heatmap and answer.features is not None
    assert (answer.heatmap.method, answer.heatmap.passes) == ("CLASS_ACTIVATION_MAP", 1)
    assert list(answer.heatmap.maps) == [entry.index for entry in answer.classes]
    assert expected.heatmaps is not None and expected.features is not None
    for index, heatmap in answer.heatmap.maps.items():
        raw = expected.heatmaps[0, index]
        scaled = (raw - raw.min()) / (raw.max() - raw.min())
        np.testing.assert_allclose(heatmap, scaled, atol=1e-3)
    assert cosine(answer.features, expected.features[0]) >= 0.9999


def test_occlusion_finds_what_makes_the_class_less_probable(
    client: Client, photos: dict[str, bytes]
) -> None:
    answer = client.classify(photos["china.jpg"], model="alexnet", include=ALL, top_k=2)
    assert answer.heatmap and answer.features is not None
    assert (answer.heatmap.method, answer.heatmap.passes) == ("OCCLUSION", 50)
    assert len(answer.features) == 4096
    assert list(answer.heatmap.maps) == [entry.index for entry in answer.classes]
    row, module = network_of("alexnet")
    expected = occlude(seen(answer), row, module, answer.best.index)
    np.testing.assert_allclose(answer.heatmap.maps[answer.best.index], expected, atol=5e-3)


def occlude(pixels: Pixels, row: Network, module: torch.nn.Module, index: int) -> Floats:
    """A map of 7x7, as the contract describes it: patches of 64 pixels around cells of 32."""
    mean, std = np.array(row.mean), np.array(row.std)

    def log_probability(picture: Pixels) -> float:
        normalised = torch.from_numpy(((picture / 255 - mean) / std).astype(np.float32))
        with torch.inference_mode():
            logits = module(normalised.permute(2, 0, 1)[np.newaxis])
        return float(logits.log_softmax(1)[0, index])

    drops = np.zeros((7, 7), np.float32)
    for y in range(7):
        for x in range(7):
            covered = pixels.copy()
            top, left = max(0, 32 * y - 16), max(0, 32 * x - 16)
            covered[top : 32 * y + 48, left : 32 * x + 48] = np.round(mean * 255)
            drops[y, x] = max(0.0, log_probability(pixels) - log_probability(covered))
    scaled: Floats = drops / drops.max()
    return scaled


def test_two_objects_have_two_maps(client: Client) -> None:
    """The evidence for each class is where its digit is."""
    picture = png(draw([(0, 1, 9), (1, 17, 9)], np.random.default_rng(5)))
    answer = client.classify(picture, model=STROKES, include=["HEATMAP"])
    assert answer.heatmap and {entry.label for entry in answer.classes} == {"zero", "one"}
    by_label = {entry.label: answer.heatmap.maps[entry.index] for entry in answer.classes}
    centres = {label: centre(heatmap) for label, heatmap in by_label.items()}
    assert centres["zero"] < 0.45 and centres["one"] > 0.55, centres


def centre(heatmap: Floats) -> float:
    """Of the upper half of the evidence, from 0, the left edge, to 1, the right one."""
    strong = np.maximum(heatmap - 0.5, 0).sum(0)
    return float((strong * (np.arange(len(strong)) + 0.5)).sum() / strong.sum() / len(strong))


def test_layers_are_those_of_lenet5(client: Client, digit: bytes) -> None:
    answer = client.classify(digit, model="lenet5", include=["INPUT", "LAYERS"])
    assert answer.layers and answer.input and answer.input.box is None
    assert {name: layer.shape for name, layer in answer.layers.items()} == {
        "C1": (6, 28, 28),
        "S2": (6, 14, 14),
        "C3": (16, 10, 10),
        "S4": (16, 5, 5),
        "C5": (120, 1, 1),
        "F6": (84, 1, 1),
    }
    row, module = network_of("lenet5")
    expected = torch_evidence(module, row.mean, row.std)(seen(answer)[np.newaxis]).layers["S2"][0]
    low, high = expected.min(), expected.max()
    difference = answer.layers["S2"] - (expected - low) / (high - low) * 255
    assert np.abs(difference).max() <= 0.51  # of 255


def test_the_box_is_the_part_of_the_upright_image_that_the_network_saw(client: Client) -> None:
    """A camera that was held on its side: the box is in pixels of the image as it is looked at."""
    upright = Image.new("RGB", (300, 600))
    upright.paste((255, 0, 0), (0, 0, 300, 150))
    upright.paste((0, 255, 0), (0, 150, 300, 450))
    content, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(content, "JPEG", exif=exif, quality=95)
    answer = client.classify(content.getvalue(), model="resnet18", include=["INPUT", "HEATMAP"])
    assert answer.input and answer.heatmap and answer.input.box == answer.heatmap.box
    # The shorter side becomes 256, of which the middle 224 are seen: 300 * 224 / 256 pixels.
    left, top, right, bottom = answer.input.box or (0, 0, 0, 0)
    assert (left, top) == pytest.approx((18.75, 168.75))
    assert (right - left, bottom - top) == pytest.approx((262.5, 262.5))
    assert (seen(answer)[:, :, 1] > 200).mean() > 0.99, "the green middle alone"


# ---------------------------------------------------------------- requests of several


def test_a_batch_answers_each_with_what_it_asked_for(
    evidence_gateway: Any, photos: dict[str, bytes]
) -> None:
    image = pb.Image(content=photos["flower.jpg"])
    includes: list[list[pb.Evidence]] = [
        [],
        [pb.HEATMAP],
        [pb.FEATURES],
        [pb.INPUT, pb.HEATMAP, pb.FEATURES],
    ]
    requests = [
        pb.ClassifyRequest(model="resnet18", image=image, include=include) for include in includes
    ]
    with grpc.insecure_channel(evidence_gateway.grpc) as channel:
        stub = classifier_pb2_grpc.ImageClassifierStub(channel)
        batch = stub.BatchClassify(pb.BatchClassifyRequest(requests=requests), timeout=60).results
        stream = list(stub.StreamClassify(iter(requests), timeout=60))
    for results in (batch, stream):
        given = [
            [name for name in ("input", "heatmap", "features", "layers") if answer.HasField(name)]
            for answer in (result.response for result in results)
        ]
        assert given == [[], ["heatmap"], ["features"], ["input", "heatmap", "features"]]
        alone, together = (results[n].response.heatmap.maps[0] for n in (1, 3))
        np.testing.assert_allclose(alone.values, together.values, atol=1e-4)


def test_what_nobody_asked_for_is_not_sent(evidence_gateway: Any, digit: bytes) -> None:
    url = f"{evidence_gateway.http}/v1/models/lenet5:classify"
    plain = httpx.post(url, content=digit, timeout=60).json()
    assert not plain.keys() & {"input", "heatmap", "features", "layers"}
    asked = httpx.post(f"{url}?include=FEATURES", content=digit, timeout=60).json()
    assert asked.keys() - plain.keys() == {"features"}


# ---------------------------------------------------------------- refusals


def test_a_network_without_layers_says_what_it_has(
    client: Client, photos: dict[str, bytes]
) -> None:
    with pytest.raises(errors.InvalidRequest, match="no LAYERS; it has INPUT, HEATMAP, FEATURES"):
        client.classify(photos["china.jpg"], model="resnet18", include=["LAYERS"])


def test_occlusion_that_cannot_be_done_in_time_is_refused_at_once(
    evidence_gateway: Any, photos: dict[str, bytes]
) -> None:
    with Client(evidence_gateway.grpc, timeout_s=120) as client:
        usual = client.classify(photos["china.jpg"], model="alexnet", include=["HEATMAP"])
    # Enough for the image itself, and not for half of its heat-map.
    with (
        Client(evidence_gateway.grpc, timeout_s=usual.total_ms / 1e3 / 4) as client,
        pytest.raises(errors.DeadlineExceeded),
    ):
        client.classify(photos["china.jpg"], model="alexnet", include=["HEATMAP"])


def test_the_command_draws_an_overlay(evidence_gateway: Any, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(png(draw([(0, 1, 9), (1, 17, 9)], np.random.default_rng(5))))
    command = [sys.executable, "-m", "convoy.cli", "classify", str(photo), "--model", STROKES]
    command += ["--server", evidence_gateway.grpc, "--heatmap", str(tmp_path / "out.png"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {entry["label"] for entry in json.loads(done.stdout)["classes"]} == {"zero", "one"}
    with Image.open(tmp_path / "out.png") as overlay:
        assert overlay.format == "PNG" and overlay.width == 2 * 448  # a panel for each class
