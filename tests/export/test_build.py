import dataclasses
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from convoy.v1 import classifier_pb2 as pb
from export.build import Options, Published, report, run
from export.catalog import find
from export.errors import ParityError
from export.repository import FACTS_KEY

ROOT = Path(__file__).parents[2]


def build(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a user types it, from any folder."""
    return subprocess.run(
        [sys.executable, ROOT / "export" / "build.py", *arguments],
        cwd=cwd,
        env=os.environ | {"CONVOY_REPOSITORY": str(cwd / "models"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_build_publishes_and_reports_from_any_folder(tmp_path: Path) -> None:
    done = build(tmp_path, "lenet5", "--fp16", "--weights", "random")
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "models" / "lenet5.v1"
    assert sorted(path.name for path in folder.iterdir()) == ["1", "config.pbtxt", "labels.txt"]
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{folder}: published, fp16, 0.1 MB")
    assert "PyTorch fp32 → ONNX fp32" in lines[1] and "ONNX fp32 → ONNX fp16" in lines[2]
    assert lines[3] == "  weights: random, so that no answer of this version means anything"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["resnet512"], 2, "No network is called 'resnet512': did you mean resnet152"),
        (["resnet152"], 1, "This version does not download weights: give --weights FILE"),
        (["lenet5", "--weights", "no.pth"], 1, "There is no file no.pth"),
    ],
    ids=["unknown network", "no download", "no file"],
)
def test_failure_is_one_sentence(
    arguments: list[str], code: int, message: str, tmp_path: Path
) -> None:
    done = build(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1


def test_help_teaches() -> None:
    shown = build(ROOT, "--help").stdout
    for word in ("python export/build.py resnet152 --fp16 --weights random", "CONVOY_REPOSITORY"):
        assert word in shown
    assert "lenet5, resnet152" in shown


def test_parity_that_fails_publishes_nothing(tmp_path: Path) -> None:
    strict = dataclasses.replace(find("lenet5"), fp32_tolerance=1e-12)
    options = Options(strict, "fp32", "random", 0, tmp_path, False)
    with pytest.raises(ParityError, match=r"PyTorch fp32 → ONNX fp32: .* 1e-12 is allowed"):
        run(options, step=lambda _: None)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_command_makes_it_again_and_names_no_path(tmp_path: Path) -> None:
    options = Options(find("lenet5"), "fp16", "/home/me/my weights.pth", 3, tmp_path, True)
    assert options.command == "python export/build.py lenet5 --fp16 --weights 'my weights.pth'"
    options = dataclasses.replace(options, precision="fp32", weights="random")
    assert options.command == "python export/build.py lenet5 --weights random --seed 3"


def test_manifest_says_what_the_version_was_made_of(built: Published) -> None:
    manifest = built.model.manifest
    onnx = (built.folder / "1" / "model.onnx").read_bytes()
    assert manifest.onnx_sha256 == hashlib.sha256(onnx).hexdigest()
    assert (manifest.network, manifest.precision, manifest.weights.source) == (
        "lenet5",
        "fp32",
        "random",
    )
    assert (manifest.parameters, manifest.macs) == (60_000, 325_680)
    assert set(manifest.versions) == {"torch", "onnx", "onnxscript", "onnxruntime"}
    assert not any("+" in version for version in manifest.versions.values())


def test_report_tells_what_was_measured(built: Published) -> None:
    model = pb.Model(manifest=pb.Manifest(precision="fp32"))
    model.manifest.weights.CopyFrom(pb.Weights(source="digits", file="lenet5.pth"))
    model.manifest.accuracy.add(measured="top-1, held-out fifth", correct=357, total=360)
    lines = report(Published(built.folder, model)).splitlines()
    assert lines[1:] == [
        "  357 of 360 right (99.2%): top-1, held-out fifth",
        "  weights: digits (lenet5.pth)",
    ]


def test_shipped_lenet5_was_built_from_the_shipped_weights() -> None:
    folder = ROOT / "model_repository" / "lenet5.v1"
    config = text_format.Parse((folder / "config.pbtxt").read_text(), ModelConfig())
    facts = json_format.Parse(config.parameters[FACTS_KEY].string_value, pb.Model())
    weights = ROOT / "export" / "weights" / "lenet5.pth"
    assert facts.manifest.weights.source == "digits"
    assert facts.manifest.weights.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    onnx = (folder / "1" / "model.onnx").read_bytes()
    assert facts.manifest.onnx_sha256 == hashlib.sha256(onnx).hexdigest()
    assert facts.manifest.accuracy[0].total == 360
    assert str(ROOT).encode() not in onnx + (folder / "config.pbtxt").read_bytes()
