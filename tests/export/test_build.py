import contextlib
import dataclasses
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from convoy.v1 import classifier_pb2 as pb
from export.build import Options, Published, check_name, report, run
from export.catalog import CATALOG, Checkpoint, find, photo
from export.errors import BadName, ParityError
from export.repository import FACTS_KEY
from export.state_dicts import architecture

ROOT = Path(__file__).parents[2]


def build(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a user types it, from any folder."""
    return subprocess.run(
        [sys.executable, ROOT / "export" / "build.py", *arguments],
        cwd=cwd,
        env=os.environ
        | {
            "CONVOY_REPOSITORY": str(cwd / "models"),
            "CONVOY_WEIGHTS_URL": "http://127.0.0.1:1/",  # where nobody listens
            "XDG_CACHE_HOME": str(cwd / "cache"),
            "NO_PROXY": "127.0.0.1",
            "COLUMNS": "200",
        },
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
        (["resnet18"], 1, "Cannot download http://127.0.0.1:1/resnet18-f37072fd.pth ("),
        (["lenet5", "--weights", "no.pth"], 1, "There is no file no.pth"),
        (["lenet5", "--labels", "no.txt"], 1, "Cannot read the labels in no.txt: No such file"),
        (["lenet5", "--name", "My.v2"], 2, "No model can be called 'My.v2': take small letters"),
        (["lenet5", "--name", "nin"], 2, "nin is another network than lenet5: take another name."),
    ],
    ids=["unknown network", "no network", "no file", "no labels", "bad name", "taken name"],
)
def test_failure_is_one_sentence(
    arguments: list[str], code: int, message: str, tmp_path: Path
) -> None:
    done = build(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1


def test_help_teaches() -> None:
    shown = build(ROOT, "--help").stdout
    for word in (
        "python export/build.py resnet152 --fp16 --weights random",
        "python export/build.py resnet50 --weights flowers.pth --labels flowers.txt --name my-flow",
        "CONVOY_REPOSITORY",
        "CONVOY_WEIGHTS_URL",
        *CATALOG,
    ):
        assert word in shown


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


def test_command_has_the_users_labels_and_name(tmp_path: Path) -> None:
    labels = Path("/home/me/flowers.txt")
    options = Options(
        find("resnet50"), "fp32", "f.pth", 0, tmp_path, False, labels, published_as="my-flowers"
    )
    assert options.command == (
        "python export/build.py resnet50 --weights f.pth --labels flowers.txt --name my-flowers"
    )


@pytest.mark.parametrize("name", ["nin_cifar10", "my-flowers", "7", "a_b-c"])
def test_model_can_be_called_so(name: str) -> None:
    check_name(name, find("nin_cifar10"))


@pytest.mark.parametrize("name", ["", "-a", "_a", "A", "a b", "a/b", "a.v1", "blümchen", "a\n"])
def test_model_cannot_be_called_so(name: str) -> None:
    with pytest.raises(BadName, match="take small letters, digits, - and _"):
        check_name(name, find("nin_cifar10"))


def test_users_own_classes_are_published_under_their_name(tmp_path: Path) -> None:
    network = find("nin_cifar10")
    flowers = ["daisy", "dandelion", "rose"]
    torch.save(architecture(network, len(flowers)).state_dict(), tmp_path / "flowers.pth")
    (tmp_path / "flowers.txt").write_text("daisy\tn11939491\ndandelion\nrose\n")
    done = build(
        tmp_path,
        *("nin_cifar10", "--weights", "flowers.pth", "--labels", "flowers.txt"),
        *("--name", "my-flowers"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "models" / "my-flowers.v1"
    assert (folder / "labels.txt").read_text().splitlines() == flowers
    config = text_format.Parse((folder / "config.pbtxt").read_text(), ModelConfig())
    assert list(config.output[0].dims) == [3]
    model = json_format.Parse(config.parameters[FACTS_KEY].string_value, pb.Model())
    assert model.labels[0] == pb.Label(name="daisy", id="n11939491")
    assert (model.manifest.network, model.manifest.weights.source) == ("nin_cifar10", "file")
    assert {len(golden.expected) for golden in model.golden_images} == {3}


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a server of the folder's files."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_published_weights_are_downloaded_into_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    network = find("nin_cifar10")
    served = tmp_path / "served"
    served.mkdir()
    torch.save(architecture(network, 10).state_dict(), served / "nin.pth")
    digest = hashlib.sha256((served / "nin.pth").read_bytes()).hexdigest()
    file = f"nin-{digest[:8]}.pth"
    (served / "nin.pth").rename(served / file)
    checkpoint = Checkpoint("imagenet1k_v1", file, photo(resize=40, crop=32))
    network = dataclasses.replace(network, checkpoints=(checkpoint,))
    received: list[int] = []
    with serving(served) as url:
        options = Options(network, "fp32", "imagenet", 0, tmp_path, False, weights_url=url)
        published = run(options, lambda _: None, lambda _, there, total: received.append(there))
    weights = published.model.manifest.weights
    assert (weights.source, weights.file, weights.sha256) == ("imagenet1k_v1", file, digest)
    assert published.model.preprocessing.photo.resize == 40
    assert received[-1] == (served / file).stat().st_size
    assert (tmp_path / "cache" / "convoy" / "weights" / file).exists()


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
