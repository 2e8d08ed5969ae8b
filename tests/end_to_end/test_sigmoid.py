"""Networks whose scores are those of each class for itself: from a file of weights to each API.

Two are made of the shipped Network in Network, which reads digits: `marks` has its ten outputs as
labels of which several may hold, some with thresholds; `seven` has one output.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch

from convoy import Client
from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc as rpc
from export.build import run
from export.catalog import find
from export.console import PublishedVersion
from export.files import TRAINED_WEIGHTS
from export.options import Options, Precision
from export.proof.golden import draw_page
from export.samples.images import CALIBRATION_SEED, digits
from export.verify import compare_golden_images
from tests.conftest import RUNNERS, RunningGateway, Serve, need_runner

# On few digits: the ladder has tests of its own.
NETWORK = dataclasses.replace(find("nin_digits"), proof_images=16)
MARKS = """name,threshold
zero,0.9
one,
two,0.000001
three,
four,0.5
five,0
six,
seven,1
eight,0.02
nine,
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three precisions of one file of weights share its graph in fp32."""
    folder = tmp_path_factory.mktemp("sigmoid")
    weights = torch.load(TRAINED_WEIGHTS / f"{NETWORK.name}.pth", weights_only=True)
    torch.save(weights, folder / "ten.pth")
    seven = {name: row[7:8] if name.startswith("scores.") else row for name, row in weights.items()}
    torch.save(seven, folder / "one.pth")
    (folder / "marks.csv").write_text(MARKS)
    (folder / "seven.txt").write_text("seven\n")
    build(folder, "marks", "ten.pth", "marks.csv")
    build(folder, "seven", "one.pth", "seven.txt")
    build(folder, "half", "ten.pth", "marks.csv", "fp16")
    (folder / "pages").mkdir()
    for number, plane in enumerate(digits(16, CALIBRATION_SEED).pixels):
        (folder / "pages" / f"{number}.png").write_bytes(draw_page(plane))
    build(folder, "eight", "ten.pth", "marks.csv", "int8", calibration=folder / "pages")
    return folder / "models"


def build(
    folder: Path,
    name: str,
    weights: str,
    labels: str,
    precision: Precision = "fp32",
    calibration: Path | None = None,
) -> PublishedVersion:
    options = Options(
        NETWORK,
        precision,
        str(folder / weights),
        0,
        folder / "models",
        labels=folder / labels,
        published_as=name,
        activation="sigmoid",
        calibration=calibration,
    )
    return run(options)


@pytest.fixture(scope="module", params=RUNNERS)
def gateway(
    request: pytest.FixtureRequest, repository: Path, serve_together: Serve
) -> RunningGateway:
    runner = need_runner(request, request.param)
    running = serve_together(f"--repository={repository}", f"--runner={runner}")
    running.wait_until_ready()
    return running


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, gateway: RunningGateway) -> Iterator[Client]:
    with Client(getattr(gateway, request.param)) as client:
        yield client


Scores = dict[str, float]


def scores(classes: Any) -> Scores:
    return {answered.label: answered.score for answered in classes}


def about(expected: Scores) -> Any:
    """Batches of another size may round otherwise."""
    return pytest.approx(expected, abs=1e-4)


@pytest.fixture
def every(client: Client, digit: bytes) -> Scores:
    """The scores of all ten labels, best first."""
    answer = client.classify(digit, model="marks", top_k=10, min_score=0)
    return {answered.label: answered.score for answered in answer.classes}


def test_each_score_stands_for_itself(every: Scores) -> None:
    assert len(every) == 10 and next(iter(every)) == "seven"
    assert abs(sum(every.values()) - 1) > 1e-3


@pytest.mark.parametrize(("name", "precision"), [("half", "fp16"), ("eight", "int8")])
def test_fp16_and_int8_score_as_fp32_does(
    name: str, precision: str, client: Client, digit: bytes, every: Scores
) -> None:
    answer = client.classify(digit, model=name, top_k=10, min_score=0)
    allowed = NETWORK.tolerance(precision, is_random=False)
    assert scores(answer.classes) == pytest.approx(every, abs=allowed)
    manifest = client.model(name).manifest
    assert (manifest.precision, manifest.activation) == (precision, "sigmoid")
    assert f"--{precision}" in manifest.build_command


def test_thresholds_say_which_labels_are_answered(
    client: Client, digit: bytes, every: Scores
) -> None:
    thresholds = {label.name: label.threshold for label in client.model("marks").labels}
    expected = {name: score for name, score in every.items() if score >= thresholds[name]}
    assert "seven" not in expected and "zero" not in expected and len(expected) > 0
    answer = client.classify(digit, model="marks", top_k=10)
    assert scores(answer.classes) == about(expected)
    first = client.classify(digit, model="marks", top_k=1)
    assert [answered.label for answered in first.classes] == [next(iter(expected))]


def test_min_score_stands_in_for_all_thresholds(
    client: Client, digit: bytes, every: Scores
) -> None:
    lowest = sorted(every.values())[-3]
    answer = client.classify(digit, model="marks", top_k=10, min_score=lowest - 1e-6)
    assert [answered.label for answered in answer.classes] == list(every)[:3]
    assert not client.classify(digit, model="marks", min_score=1).classes


def test_batch_and_stream_answer_as_one_image_does(
    client: Client, gateway: RunningGateway, digit: bytes
) -> None:
    expected = scores(client.classify(digit, model="marks", top_k=10).classes)
    for answer in client.classify_batch([digit] * 2, model="marks", top_k=10):
        assert not isinstance(answer, Exception)
        assert scores(answer.classes) == about(expected)
    request = pb.ClassifyRequest(model="marks", image=pb.Image(content=digit), top_k=10)
    with grpc.insecure_channel(gateway.grpc) as channel:
        stub = rpc.ImageClassifierStub(channel)
        (item,) = stub.StreamClassify(iter([request]))
    assert scores(item.response.classes) == about(expected)


def test_open_inference_answers_every_class(
    client: Client, gateway: RunningGateway, digit: bytes, every: Scores
) -> None:
    import tritonclient.http

    image = tritonclient.http.InferInput("image", [2, 1], "BYTES")
    image.set_data_from_numpy(np.array([[digit], [digit]], np.object_))
    with tritonclient.http.InferenceServerClient(gateway.http.removeprefix("http://")) as triton:
        answer = triton.infer("marks", [image], parameters={"top_k": 10})
    labels, found = answer.as_numpy("label"), answer.as_numpy("score")
    assert [label.decode() for label in labels[0]] == list(every)
    assert found[0] == pytest.approx(list(every.values()), abs=1e-4)


def test_one_output_is_a_score_and_not_1(client: Client, digit: bytes) -> None:
    (answer,) = client.classify(digit, model="seven").classes
    (known,) = (
        answer.score
        for answer in client.classify(digit, model="marks", top_k=10, min_score=0).classes
        if answer.label == "seven"
    )
    assert answer.label == "seven" and answer.score < 1
    assert answer.score == pytest.approx(known, abs=1e-4)
    golden = client.model("seven").golden_images[0]
    (expected,) = golden.expected
    (answered,) = client.classify(golden.content, model="seven").classes
    assert answered.score == pytest.approx(expected.score, abs=golden.tolerance)


def test_verify_asks_for_all_labels_whatever_their_thresholds(client: Client) -> None:
    model = client.model("marks")
    assert compare_golden_images(client, model).images == len(model.golden_images) > 0


def test_manifest_and_its_command_say_sigmoid(client: Client) -> None:
    manifest = client.model("marks").manifest
    assert manifest.activation == "sigmoid"
    assert "--activation sigmoid" in manifest.build_command
    rungs = client.model("seven").parity
    assert [rung.name for rung in rungs] == [
        "PyTorch fp32 → ONNX fp32",
        "ONNX fp32 → served",
    ]


def test_heat_maps_are_of_the_classes_that_are_answered(client: Client, digit: bytes) -> None:
    answer = client.classify(digit, model="marks", include=["HEATMAP"])
    assert answer.heatmap and answer.classes
    assert set(answer.heatmap.maps) <= {answered.index for answered in answer.classes}
    one = client.classify(digit, model="seven", include=["HEATMAP", "FEATURES"])
    assert one.heatmap and list(one.heatmap.maps) == [0] and one.features is not None
