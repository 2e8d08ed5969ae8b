"""The three moves of docs/moving-in.md: their commands run as they stand there, and print what it
shows, but for numbers."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from export.adopt import adopt
from export.build import build
from export.catalog import find
from export.checkpoints.random_weights import initialise
from export.checkpoints.state_dicts import architecture
from export.conversion.tensorrt_library import explain_missing_plan_support
from export.repository.config import read_facts
from export.samples.images import PHOTOS, photo
from tests.export.adoption.detective import hidden
from tests.export.preparation.test_files import TIMM

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "moving-in.md"
COMMANDS = {"python export/build.py": build, "convoy adopt": adopt}
LABELS = ("flower", "stripes", "temple")  # in ImageFolder's order
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@dataclass(frozen=True)
class Step:
    command: str
    shown: tuple[str, ...]

    @property
    def publishes(self) -> bool:
        return any(": published, " in line for line in self.shown)


def steps(heading: str) -> list[Step]:
    """The sessions of a section: each command follows "$", and then what it shows."""
    text = DOCUMENT.read_text(encoding="utf-8")
    (section,) = re.findall(rf"^### {re.escape(heading)}\n(.*?)(?=^##|\Z)", text, re.M | re.S)
    sessions = "\n".join(re.findall(r"^```console\n(.*?)^```", section, re.M | re.S))
    parts = sessions.replace("\\\n", " ").split("$ ")[1:]
    return [Step(*_split(part.splitlines())) for part in parts]


def _split(lines: list[str]) -> tuple[str, tuple[str, ...]]:
    return lines[0], tuple(line for line in lines[1:] if line.strip(" …"))


def walk(heading: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs all steps of a section in a folder; the repository."""
    monkeypatch.chdir(folder)
    found = steps(heading)
    assert found
    for step in found:
        code, printed = run(step.command, folder / "model_repository")
        assert (code == 0) == step.publishes, printed
        lines = [masked(line, folder) for line in printed.splitlines()]
        for line in step.shown:
            assert masked(line, folder) in lines, printed
    return folder / "model_repository"


def run(line: str, repository: Path) -> tuple[int, str]:
    """The command in this process, which has imported torch already."""
    (start,) = (start for start in COMMANDS if line.startswith(f"{start} "))
    app = typer.Typer()
    app.command()(COMMANDS[start])
    runner = CliRunner(env={"CONVOY_REPOSITORY": str(repository), "COLUMNS": "200"})
    ended = runner.invoke(app, shlex.split(line.removeprefix(start)), catch_exceptions=False)
    return ended.exit_code, ended.output


def masked(line: str, folder: Path) -> str:
    """Without what another machine and another day change: numbers, folders, widths."""
    text = re.sub(r"\d[\d.]*(e[+-]?\d+)?", "#", line.replace(f"{folder}/", ""))
    return re.sub(r"─+", "─", " ".join(text.split()))


# ------------------------------------------------------------------------------ what people bring


def write_pictures(folder: Path, count: int) -> dict[str, list[Path]]:
    """A folder for each class: parts of two photographs, and stripes of all colours."""
    random = np.random.default_rng(7)
    paths: dict[str, list[Path]] = {}
    for label in LABELS:
        (folder / label).mkdir(parents=True)
        for number in range(count):
            path = folder / label / f"{number}.png"
            picture(label, random).save(path)
            paths.setdefault(label, []).append(path)
    return paths


def picture(label: str, random: np.random.Generator) -> Image.Image:
    width, height = (int(side) for side in random.integers(260, 400, 2))
    if label == "stripes":
        phase = np.arange(height)[:, None, None] / random.integers(3, 9)
        colours = random.integers(40, 255, 3)
        levels = np.broadcast_to((np.sin(phase) > 0) * colours, (height, width, 3))
        return Image.fromarray(levels.astype(np.uint8))
    x, y = int(random.integers(640 - width)), int(random.integers(427 - height))
    name = PHOTOS[LABELS.index(label) == 0]
    return photo(name).crop((x, y, x + width, y + height))


Prepare = Callable[[Image.Image], Image.Image]


def fine_tune(pictures: dict[str, list[Path]], prepare: Prepare) -> nn.Module:
    """A ResNet-18, whose layers have torchvision's and timm's names, with a new head that is
    fitted to the pictures; its other weights are random."""
    module = architecture(find("resnet18"), len(LABELS)).eval()
    images = torch.stack(
        [to_input(prepare(Image.open(path))) for label in LABELS for path in pictures[label]]
    )
    classes = torch.arange(len(LABELS)).repeat_interleave(len(images) // len(LABELS))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        initialise(module, images)
        head = module.get_submodule("fc")
        module.fc = nn.Identity()
        features = nn.functional.pad(module(images), (0, 1), value=1)
        module.fc = head
        wanted = 8 * nn.functional.one_hot(classes, len(LABELS)).float()
        solution = torch.linalg.lstsq(features, wanted, driver="gelsd").solution
        head.get_parameter("weight").copy_(solution[:-1].T)
        head.get_parameter("bias").copy_(solution[-1])
    return module


def to_input(picture: Image.Image) -> torch.Tensor:
    """3×224×224, normalised."""
    values = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(IMAGENET[name])[:, None, None] for name in ("mean", "std"))
    return (values - mean) / std


def resized(side: int, how: Image.Resampling) -> Prepare:
    """The shorter side resized, the middle 224×224 of it."""

    def prepare(picture: Image.Image) -> Image.Image:
        shorter = min(picture.size)
        width, height = (side * length // shorter for length in picture.size)
        left, top = round((width - 224) / 2), round((height - 224) / 2)
        return picture.resize((width, height), how).crop((left, top, left + 224, top + 224))

    return prepare


# ------------------------------------------------------------------------------ the three moves


@pytest.fixture
def onnx_format() -> None:
    if not explain_missing_plan_support():
        pytest.skip("builds make TensorRT plans here, and the document shows ONNX")


@pytest.mark.slow
@pytest.mark.usefixtures("onnx_format")
def test_a_checkpoint_that_torchvision_fine_tuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = resized(256, Image.Resampling.BILINEAR)
    module = fine_tune(write_pictures(tmp_path / "train", 4), prepare)
    write_pictures(tmp_path / "test", 4)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    content = {
        "model": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 30).state_dict(),
        "epoch": 9,
        "args": argparse.Namespace(model="resnet18", lr=0.1, device="cuda", resume=None),
    }
    torch.save(content, tmp_path / "checkpoint.pth")
    indices = {label: index for index, label in enumerate(LABELS)}
    (tmp_path / "class_to_idx.json").write_text(json.dumps(indices))
    (tmp_path / "preset.txt").write_text(
        "ImageClassification(\n    crop_size=[224]\n    resize_size=[256]\n"
        "    mean=[0.485, 0.456, 0.406]\n    std=[0.229, 0.224, 0.225]\n"
        "    interpolation=InterpolationMode.BILINEAR\n)\n"
    )
    repository = walk("A checkpoint that torchvision fine-tuned", tmp_path, monkeypatch)
    model = read_facts(repository / "flowers.v1")
    assert model and model.manifest.evaluation.top1_correct == 12
    assert [label.name for label in model.labels] == list(LABELS)
    assert model.manifest.preparation.file == "preset.txt"
    assert not model.manifest.preparation.assumed


@pytest.mark.slow
@pytest.mark.usefixtures("onnx_format")
def test_a_checkpoint_that_timm_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its `CheckpointSaver` and `save_config_for_hf` write it."""
    module = fine_tune(write_pictures(tmp_path / "train", 4), resized(235, BICUBIC))
    write_pictures(tmp_path / "val", 4)
    averaged = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.get_parameter("fc.weight").data.neg_()  # the raw weights answer otherwise
    content = {
        "epoch": 42,
        "arch": "resnet18",
        "optimizer": torch.optim.SGD(module.parameters(), lr=0.05).state_dict(),
        "version": 2,
        "args": argparse.Namespace(model="resnet18", mean=None, model_ema_decay=0.9998),
        "amp_scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 7},
        "state_dict": module.state_dict(),
        "state_dict_ema": averaged,
        "metric": 91.7,
    }
    torch.save(content, tmp_path / "model_best.pth.tar")
    (tmp_path / "config.json").write_text(json.dumps(TIMM_CONFIG, indent=2))
    (tmp_path / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    repository = walk("A checkpoint that timm trained", tmp_path, monkeypatch)
    model = read_facts(repository / "flowers-timm.v1")
    assert model and model.manifest.evaluation.top1_correct == 12
    assert model.preprocessing.photo.resize == 235
    assert model.manifest.preparation.file == "config.json"


BICUBIC = Image.Resampling.BICUBIC
TIMM_CONFIG = {**TIMM, "architecture": "resnet18", "num_classes": 3, "num_features": 512}


def test_an_onnx_file_that_nobody_knows_how_to_feed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (secret,) = (it for it in hidden.HIDDEN if it.name == "timm 0.9, ViT")
    hidden.write_pictures(tmp_path / "photos")
    hidden.prepare_case(secret, tmp_path / "photos", tmp_path)
    (tmp_path / "hidden.onnx").rename(tmp_path / "old.onnx")
    repository = walk("An ONNX file that nobody knows how to feed", tmp_path, monkeypatch)
    model = read_facts(repository / "old.v1")
    assert model and model.manifest.preparation.source == "found"
    assert model.preprocessing.photo.resize == secret.resize
