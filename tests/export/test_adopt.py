"""`convoy adopt`, from the file to answers of both runners."""

from __future__ import annotations

import io
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from convoy import Client
from convoy.v1 import classifier_pb2 as pb
from export.adopt import name_of
from export.doctor.checks import examine
from export.doctor.folder import Repository, VersionFolder
from export.repository.config import max_batch_size, read_facts
from export.samples.images import PHOTOS, photo
from tests.conftest import Serve, need_runner
from tests.export.adopting import adopt_in
from tests.export.adoption.networks import (
    ANY_BATCH,
    LABELS,
    SIDE,
    FromPixels,
    classifier,
    export,
    planes,
    write_labels,
)

ONE_LEVEL = 0.01  # what grey levels that the gateway's resizer rounds otherwise make of a score


class OneLogit(nn.Module):
    """Of its label alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(x)
        return logits[:, :1]


@dataclass(frozen=True)
class Given:
    folder: Path  # with the files and labels.txt
    network: nn.Module

    @property
    def labels(self) -> Path:
        return self.folder / "labels.txt"

    def options(self, file: str | Path, *more: str | Path) -> list[str | Path]:
        """For a file of the folder, or one elsewhere."""
        return [self.folder / file, "--labels", self.labels, *more]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    folder = tmp_path_factory.mktemp("given")
    network = classifier()
    export(
        network,
        folder / "Beside_it.onnx",
        planes(2),
        dynamo=True,
        dynamic_shapes=({0: "n"},),
        external_data=True,
    )
    pixels = torch.zeros((4, SIDE, SIDE, 3), dtype=torch.uint8)
    export(FromPixels(network), folder / "pixels.onnx", pixels)
    export(network, folder / "any.onnx", planes(2), **ANY_BATCH)
    one_logit = OneLogit(network)
    export(one_logit, folder / "logit.onnx", planes(2), **ANY_BATCH)
    export(nn.Sequential(one_logit, nn.Sigmoid()), folder / "one.onnx", planes(2), **ANY_BATCH)
    (folder / "one.txt").write_text("defect\n")
    write_labels(folder / "labels.txt")
    examples = folder / "examples" / "more"
    examples.mkdir(parents=True)
    for name in PHOTOS:
        photo(name).save(examples / f"{name}.png")
        photo(name).crop((0, 0, 200, 150)).rotate(90).save(examples / name)
    return Given(folder, network)


@pytest.fixture(scope="module")
def adopted(
    given: Given, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, subprocess.CompletedProcess[str]]:
    """Both files in one repository, whose folder is the last word of the commands."""
    repository = tmp_path_factory.mktemp("adopted")
    prepared = ["--resize", "32", "--resize-mode", "squash", "--interpolation", "bicubic"]
    normalised = ["--mean", "0.1,0.05,0", "--std", "0.9"]
    beside = [*prepared, *normalised, "--outputs", "logits", "--examples"]
    commands = {
        "beside_it": given.options("Beside_it.onnx", *beside, given.folder / "examples"),
        "pixels": given.options("pixels.onnx", "--channels", "bgr", "--resize", "36"),
        "one": [
            *given.options("one.onnx", "--labels", given.folder / "one.txt", "--mean", "0"),
            *("--std", "1", "--resize", "32", "--examples", given.folder / "examples"),
        ],
        "half": given.options("any.onnx", *beside, given.folder / "examples", "--fp16"),
        "eight": given.options("any.onnx", *beside, given.folder / "examples", "--int8"),
    }
    return {
        name: adopt_in(repository, *command, "--name", name, "--repository", repository)
        for name, command in commands.items()
    }


@pytest.fixture(scope="module")
def repository(adopted: dict[str, subprocess.CompletedProcess[str]]) -> Path:
    for ended in adopted.values():
        assert ended.returncode == 0, ended.stderr
    return Path(adopted["pixels"].args[-1])


def facts(repository: Path, folder: str) -> pb.Model:
    model = read_facts(repository / folder)
    assert model
    return model


# ------------------------------------------------------------------------------ what is published


def test_the_report_shows_the_ladder_and_the_golden_images(
    adopted: dict[str, subprocess.CompletedProcess[str]], repository: Path
) -> None:
    beside, pixels = adopted["beside_it"].stdout, adopted["pixels"].stdout
    assert beside.startswith(f"{repository / 'beside_it.v1'}: published, fp32 onnx")
    for report in (beside, pixels):
        assert re.search(r"file → ONNX .* 100.0%", report)
        assert re.search(r"ONNX fp32 → served .* 100.0%", report)
    assert "golden images: of 4 examples" in beside
    assert "golden images: two sample photographs; give --examples DIR" in pixels


def test_the_manifest_says_what_was_adopted(given: Given, repository: Path) -> None:
    model = facts(repository, "beside_it.v1")
    adopted = model.manifest.adopted
    assert (adopted.file, adopted.input, adopted.output) == ("Beside_it.onnx", "x", "y")
    assert (adopted.layout, adopted.type, adopted.batch) == ("NCHW", "float32", 0)
    assert (adopted.scores, list(adopted.external_data)) == ("logits", ["Beside_it.onnx.data"])
    assert model.manifest.preparation.source == "given"
    assert list(model.manifest.preparation.assumed) == ["antialiasing", "channels"]
    assert model.manifest.build_command == (
        "convoy adopt Beside_it.onnx --labels labels.txt --outputs logits --examples examples "
        "--name beside_it --resize 32 --interpolation bicubic --resize-mode squash "
        "--mean 0.1,0.05,0 --std 0.9"
    )
    pixels = facts(repository, "pixels.v1")
    adopted = pixels.manifest.adopted
    assert (adopted.layout, adopted.type, adopted.batch) == ("NHWC", "uint8", 4)
    assert adopted.scores == "probabilities"
    assert max_batch_size(repository / "pixels.v1") == 4
    assert not {"mean", "std", "crop"} & set(pixels.manifest.preparation.assumed)


@pytest.mark.parametrize(("name", "precision"), [("half", "fp16"), ("eight", "int8")])
def test_a_file_is_published_in_the_precision_that_is_asked_for(
    name: str,
    precision: str,
    adopted: dict[str, subprocess.CompletedProcess[str]],
    repository: Path,
) -> None:
    model = facts(repository, f"{name}.v1")
    manifest = model.manifest
    assert manifest.precision == precision and precision[-2:] in manifest.precision_recipe
    assert [rung.name for rung in model.parity] == [
        "file → ONNX",
        f"ONNX fp32 → ONNX {precision}",
        f"ONNX {precision} → served",
    ]
    assert f"any.onnx --{precision} " in manifest.build_command
    assert manifest.calibration.images == (4 if precision == "int8" else 0), "the examples"
    assert re.search(f"published, {precision} onnx", adopted[name].stdout)


def test_golden_images_are_of_different_classes(repository: Path) -> None:
    goldens = facts(repository, "beside_it.v1").golden_images
    assert len({golden.expected[0].label for golden in goldens}) == len(goldens) >= 2
    assert all(golden.name.startswith("more/") for golden in goldens)


def test_the_doctor_finds_nothing(repository: Path) -> None:
    for name in ("beside_it", "pixels"):
        version = VersionFolder(Repository(repository, is_default=True), repository / f"{name}.v1")
        assert [finding.problem for finding in examine(version)] == []


def test_the_same_again_is_published_already(given: Given, repository: Path) -> None:
    command = given.options(
        "pixels.onnx", "--channels", "bgr", "--resize", "36", "--name", "pixels"
    )
    again = adopt_in(repository, *command)
    assert "pixels.v1: already published, by the same build" in again.stdout


# ------------------------------------------------------------------------------ what is served


@pytest.fixture(scope="module", params=["in-process", "triton-local"])
def client(
    request: pytest.FixtureRequest, repository: Path, serve_together: Serve
) -> Iterator[Client]:
    runner = need_runner(request, request.param)
    gateway = serve_together(f"--repository={repository}", f"--runner={runner}")
    gateway.wait_until_ready()
    with Client(gateway.grpc, timeout_s=60) as opened:
        yield opened


def pictures() -> list[bytes]:
    contents = []
    for name in PHOTOS:
        for box in ((0, 0, 640, 427), (100, 50, 400, 350), (300, 0, 500, 400)):
            content = io.BytesIO()
            photo(name).crop(box).save(content, "PNG")
            contents.append(content.getvalue())
    return contents


def served(client: Client, model: str) -> npt.NDArray[np.float32]:
    """All scores of the pictures, which are sent at once."""
    answers = np.zeros((len(pictures()), len(LABELS)), np.float32)

    def classify(row: int, content: bytes) -> None:
        answer = client.classify(content, model=model, top_k=len(LABELS))
        for entry in answer.classes:
            assert entry.label == LABELS[entry.index]
            answers[row, entry.index] = entry.score

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(classify, *zip(*enumerate(pictures()), strict=True)))
    return answers


def run_file(path: Path, inputs: npt.NDArray[np.generic], batch: int) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rows = []
    for image in inputs:
        filled = np.repeat(image[np.newaxis], batch, axis=0)
        rows.append(session.run(None, {"x": filled})[0][0])
    return np.stack(rows)


def test_both_runners_answer_as_the_file_does(client: Client, given: Given) -> None:
    squashed = [
        Image.open(io.BytesIO(content)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        for content in pictures()
    ]
    pixels = np.stack([np.asarray(picture) for picture in squashed])
    values = ((pixels / 255 - np.array([0.1, 0.05, 0])) / 0.9).transpose(0, 3, 1, 2)
    logits = run_file(given.folder / "Beside_it.onnx", values.astype(np.float32), 1)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = powers / powers.sum(axis=1, keepdims=True)
    answers = served(client, "beside_it")
    assert np.abs(answers - expected).max() < ONE_LEVEL
    assert len(set(expected.argmax(axis=1).tolist())) > 1, "so that it could differ"


@pytest.mark.parametrize(("name", "tolerance"), [("half", 0.01), ("eight", 0.2)])
def test_both_runners_answer_in_fp16_and_int8_as_in_fp32(
    name: str, tolerance: float, client: Client
) -> None:
    """Of random weights, whose answers are far apart."""
    assert 0 < np.abs(served(client, name) - served(client, "beside_it")).max() < tolerance


def test_both_runners_fill_up_the_batch_of_a_file_that_fixes_one(
    client: Client, given: Given
) -> None:
    """And what takes blue first gets it."""
    cropped = []
    for content in pictures():
        picture = Image.open(io.BytesIO(content))
        shorter = min(picture.size)
        size = (36 * picture.width // shorter, 36 * picture.height // shorter)
        left, top = (round((side - SIDE) / 2) for side in size)
        box = (left, top, left + SIDE, top + SIDE)
        cropped.append(np.asarray(picture.resize(size, Image.Resampling.BILINEAR).crop(box)))
    blue_first = np.stack(cropped)[..., ::-1]
    expected = run_file(given.folder / "pixels.onnx", blue_first, 4)
    assert np.abs(served(client, "pixels") - expected).max() < ONE_LEVEL


def test_one_score_after_sigmoid_is_that_of_its_label(client: Client, given: Given) -> None:
    assert client.model("one").manifest.activation == "sigmoid"
    picture = photo("flower.jpg").crop((100, 0, 527, 427))
    content = io.BytesIO()
    picture.save(content, "PNG")
    small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    values = (small / 255).astype(np.float32).transpose(2, 0, 1)
    ((expected,),) = run_file(given.folder / "one.onnx", values[np.newaxis], 1)
    (only,) = client.classify(content.getvalue(), model="one").classes
    assert only.label == "defect" and abs(only.score - expected) < ONE_LEVEL


def test_heatmaps_and_features_are_served_where_the_end_of_a_file_allows(client: Client) -> None:
    answer = client.classify(
        pictures()[0], model="beside_it", include=("HEATMAP", "FEATURES"), top_k=2
    )
    assert answer.features is not None and answer.features.shape == (16,)
    assert answer.heatmap and {heatmap.shape for heatmap in answer.heatmap.maps.values()} == {
        (7, 7)
    }


# ------------------------------------------------------------------------------ what is refused


def refused(repository: Path, *command: str | Path) -> str:
    """Nothing is published, not even in part."""
    ended = adopt_in(repository, *command)
    assert ended.returncode in (1, 2), ended.stdout
    assert not repository.exists() or not list(repository.glob("*.v*"))
    return ended.stderr


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("any.onnx", (), "ends with Gemm, which says not .*: give --outputs logits, to which"),
        ("any.onnx", ("--outputs", "scores"), "--outputs is 'scores', must be logits or prob"),
        ("pixels.onnx", ("--outputs", "logits"), "ends with Softmax, so its outputs are prob"),
        ("pixels.onnx", ("--mean", "0.5"), "takes uint8 pixels, which are not normalised"),
        ("pixels.onnx", ("--max-batch", "5"), "takes 4 images at once: give --max-batch 4"),
        ("pixels.onnx", ("--activation", "sigmoid"), "ends with Softmax: leave out --activation"),
        ("any.onnx", ("--outputs", "logits", "--activation", "relu"), "is 'relu', must be softmax"),
        ("any.onnx", ("--outputs", "logits", "--crop", "16"), "cropped to 16×16: give --crop 32"),
        (
            "any.onnx",
            ("--outputs", "logits", "--resize", "64", "--crop", "0.25"),
            "pictures are cropped to 16×16: give --crop 32",
        ),
        ("any.onnx", ("--outputs", "logits", "--name", "lenet5"), "name of a network of the catal"),
        ("any.onnx", ("--outputs", "logits", "--name", "A b"), "'A b' is not a valid model name"),
        ("none.onnx", (), "none.onnx cannot be read"),
        (
            "any.onnx",
            ("--outputs", "logits", "--int8"),
            "--int8 needs --calibration DIR, a folder with a few hundred",
        ),
        (
            "any.onnx",
            ("--outputs", "logits", "--int8", "--fp16"),
            "Give --fp16 or --int8, not both",
        ),
        ("any.onnx", ("--outputs", "logits", "--max-drop", "1"), "--max-drop needs --evaluate DIR"),
    ],
)
def test_bad_input_is_answered_with_what_mends_it(
    file: str, options: tuple[str, ...], message: str, given: Given, tmp_path: Path
) -> None:
    assert re.search(message, refused(tmp_path / "models", *given.options(file, *options)))


def test_what_the_first_rung_or_the_golden_images_refuse(given: Given, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    wrong = given.options("any.onnx", "--outputs", "probabilities")
    for each in ((), ("--activation", "sigmoid")):
        assert "probabilities are 0 to 1 and sum to 1. Give --outputs logits" in refused(
            repository, *wrong, *each
        )
    empty, alike, broken = (tmp_path / name for name in ("empty", "alike", "broken"))
    for folder in (empty, alike, broken):
        folder.mkdir()
    for side in (40, 41, 42):
        Image.new("RGB", (side, side), "white").save(alike / f"{side}.png")
    (broken / "a.jpg").write_bytes(b"no picture")
    logits = given.options("any.onnx", "--outputs", "logits", "--examples")
    assert "answers all 3 examples" in refused(repository, *logits, alike)
    assert "has no pictures" in refused(repository, *logits, empty)
    assert "a.jpg cannot be read" in refused(repository, *logits, broken)
    assert "There is no folder" in refused(repository, *logits, tmp_path / "none")
    one = given.options("logit.onnx", "--labels", given.folder / "one.txt", "--outputs", "logits")
    assert "has one output, which softmax scores 1 for every picture: give --activation" in refused(
        repository, *one
    )
    narrow = [*logits, given.folder / "examples", "--int8", "--calibration", alike]
    assert re.search(r"→ ONNX int8: .* differs by .* Give --calib", refused(repository, *narrow))
    (tmp_path / "six.txt").write_text("a\nb\nc\nd\ne\nf\n")
    six = given.options("any.onnx", "--labels", tmp_path / "six.txt", "--outputs", "logits")
    assert "scores 7 classes, and" in refused(repository, *six)


def test_both_sample_photographs_answered_alike_need_examples(given: Given, tmp_path: Path) -> None:
    model = onnx.load(given.folder / "any.onnx")
    (bias,) = (tensor for tensor in model.graph.initializer if list(tensor.dims) == [len(LABELS)])
    bias.raw_data = np.array(
        [1e4, 0, 0, 0, 0, 0, 0], np.float32
    ).tobytes()  # always the first class
    onnx.save(model, tmp_path / "constant.onnx")
    command = given.options(tmp_path / "constant.onnx", "--outputs", "logits")
    message = refused(tmp_path / "models", *command)
    assert "answers both sample photographs 'a', with scores of 1.00 to 1.00" in message


def test_a_batch_axis_that_is_none_is_found_out(given: Given, tmp_path: Path) -> None:
    """Old exporters declare any batch and have the example's in the graph."""
    path = export(given.network, tmp_path / "one.onnx", planes(1))
    model = onnx.load(path)
    (flatten,) = (node for node in model.graph.node if node.op_type == "Flatten")
    flatten.op_type = "Reshape"
    del flatten.attribute[:]
    flatten.input.append("fixed")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 16]), "fixed"))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    del model.graph.value_info[:]
    onnx.save(model, path)
    message = refused(tmp_path / "models", *given.options(path, "--outputs", "logits"))
    assert "and fails for some" in message and "Give --max-batch 1" in message


@pytest.mark.parametrize(
    ("file", "name"),
    [("Beside_it.onnx", "beside_it"), ("My Net (2).onnx", "my-net-2"), ("_.onnx", "")],
)
def test_a_files_name_becomes_a_models(file: str, name: str) -> None:
    assert name_of(Path(file)) == name
