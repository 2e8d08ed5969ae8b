import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import typer
from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig
from typer.testing import CliRunner

from convoy.v1 import classifier_pb2 as pb
from export import build as script
from export.build import run
from export.catalog import CATALOG, Checkpoint, find, photo
from export.checkpoints.state_dicts import architecture
from export.console import PublishedVersion, render_facts
from export.conversion.engine_header import read_header
from export.errors import BadName, ParityError
from export.options import Options
from export.publication import check_name
from export.repository.config import FACTS_KEY, known_weights
from tests.export.recorder import Recorder

ROOT = Path(__file__).parents[2]


def build(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a user types it, from any folder."""
    return subprocess.run(
        [sys.executable, ROOT / "export" / "build.py", *arguments],
        cwd=cwd,
        env=os.environ | environment(cwd),
        capture_output=True,
        text=True,
        check=False,
    )


def environment(cwd: Path) -> dict[str, str]:
    return {
        "CONVOY_REPOSITORY": str(cwd / "models"),
        "CONVOY_WEIGHTS_URL": "http://127.0.0.1:1/",  # where nobody listens
        "NO_PROXY": "127.0.0.1",
        "COLUMNS": "200",
    }


Built = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def build_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Built:
    """The same command in this process, which has imported torch already."""
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(script.build)

    def build(*arguments: str) -> subprocess.CompletedProcess[str]:
        ended = CliRunner(env=environment(tmp_path)).invoke(app, arguments)
        return subprocess.CompletedProcess(
            arguments, ended.exit_code, stdout=ended.stdout, stderr=ended.stderr
        )

    return build


def test_build_publishes_and_reports_from_any_folder(
    tmp_path: Path, built: PublishedVersion
) -> None:
    """The stage in fp32 is in the cache, as `built` left it there."""
    done = build(tmp_path, "lenet5", "--fp16", "--weights", "random")
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "models" / "lenet5.v1"
    assert sorted(path.name for path in folder.iterdir()) == ["1", "config.pbtxt", "labels.txt"]
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{folder}: published, fp16 onnx, 0.1 MB")
    assert lines[1].startswith("  runtime: ONNX Runtime, since ")
    rungs = ("PyTorch fp32 → ONNX fp32", "ONNX fp32 → ONNX fp16", "ONNX fp16 → served")
    assert all(any(line.strip().startswith(rung) for line in lines) for rung in rungs)
    assert lines[-2] == "  weights: random (answers are meaningless)"
    assert lines[-1].startswith("  pictures: A digit is found in the picture, ")


def test_the_same_build_again_is_published_already_unless_forced(
    tmp_path: Path, built: PublishedVersion, build_here: Built
) -> None:
    shutil.copytree(built.folder, tmp_path / "models" / "lenet5.v1")
    arguments = ("lenet5", "--weights", "random")
    again = build_here(*arguments)
    assert "lenet5.v1: already published, by the same build" in again.stdout
    assert "lenet5.v2: published" in build_here(*arguments, "--force").stdout


def test_another_seed_and_a_damaged_file_are_built_anew(
    tmp_path: Path, built: PublishedVersion
) -> None:
    shutil.copytree(built.folder, tmp_path / "lenet5.v1")

    def published(seed: int) -> PublishedVersion:
        return run(Options(find("lenet5"), "fp32", "random", seed, tmp_path))

    assert published(seed=0).was_published
    assert published(seed=1).folder.name == "lenet5.v2"
    (tmp_path / "lenet5.v2" / "1" / "model.onnx").write_bytes(b"damaged")
    assert published(seed=1).folder.name == "lenet5.v3"


def test_a_build_that_is_there_imports_nothing_heavy(built: PublishedVersion) -> None:
    """What makes the second build quick: neither torch nor onnx nor a gateway."""
    code = (
        "import sys; from pathlib import Path; from export.build import run; "
        "from export.catalog import find; from export.options import Options; "
        "published = run(Options(find('lenet5'), 'fp32', 'random', 0, Path(sys.argv[1]))); "
        "assert published.was_published; "
        "print(sorted({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(built.folder.parent)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_several_networks_end_in_a_table_and_one_failure_fails_alone(
    tmp_path: Path, build_here: Built
) -> None:
    done = build_here("lenet5", "nin", "nin_cifar10", "--weights", "digits")
    assert done.returncode == 1
    assert sorted(path.name for path in (tmp_path / "models").glob("*.v*")) == ["lenet5.v1"]
    assert "nin is not trained on digits" in done.stderr
    table = done.stdout[done.stdout.rindex("worst rung") :]
    assert table.count("FAILED") == 2 and "lenet5.v1" in table


@pytest.mark.parametrize("encoding", ["latin-1", "cp949", "ascii"])
def test_no_output_ends_a_build(
    tmp_path: Path, built: PublishedVersion, built_nin: PublishedVersion, encoding: str
) -> None:
    for version in (built, built_nin):
        shutil.copytree(version.folder, tmp_path / "models" / version.folder.name)
    reading, writing = os.pipe()
    os.close(reading)
    for output in (writing, subprocess.PIPE):
        done = subprocess.run(
            [sys.executable, "export/build.py", "lenet5", "nin_cifar10", "--weights=random"],
            cwd=ROOT,
            env=os.environ | environment(tmp_path) | {"PYTHONIOENCODING": encoding},
            stdout=output,
            stderr=subprocess.PIPE,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
    os.close(writing)
    assert b"nin_cifar10.v1, already published" in done.stdout


def test_an_rtx_engine_is_written_aside_and_published_nowhere(
    tmp_path: Path, build_here: Built
) -> None:
    done = build_here("lenet5", "--fp16", "--format", "rtx", "--weights", "random")
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "build" / "rtx" / "lenet5"
    assert "written, and not published, since Triton does not load it" in done.stdout
    assert not (tmp_path / "models").exists()
    assert read_header(folder / "model.engine").kind == "tensorrt_rtx"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["engine"]["library"] == "tensorrt_rtx"
    digest = hashlib.sha256((folder / "model.engine").read_bytes()).hexdigest()
    assert manifest["engine"]["sha256"] == digest
    assert "served" not in done.stdout and "ONNX fp32 → ONNX fp16" in done.stdout


def test_only_the_newest_are_kept(tmp_path: Path, built: PublishedVersion) -> None:
    for number in (1, 2):
        shutil.copytree(built.folder, tmp_path / f"lenet5.v{number}")
    run(Options(find("lenet5"), "fp32", "random", 1, tmp_path, keep=2))
    assert sorted(path.name for path in tmp_path.glob("*.v*")) == ["lenet5.v2", "lenet5.v3"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["resnet512"], 2, "No network is called 'resnet512': did you mean resnet152"),
        (["resnet18"], 1, "Cannot download http://127.0.0.1:1/resnet18-f37072fd.pth ("),
        (["lenet5", "--weights", "no.pth"], 1, "There is no file no.pth"),
        (["lenet5", "--labels", "no.txt"], 1, "Cannot read the labels in no.txt: No such file"),
        (
            ["lenet5", "--name", "My.v2"],
            2,
            "'My.v2' is not a valid model name: use lower-case letters",
        ),
        (
            ["lenet5", "--name", "nin"],
            2,
            "nin is the name of another network than lenet5: choose a different name.",
        ),
        (["lenet5", "nin", "--name", "a"], 2, "2 networks cannot share the name a."),
        ([], 2, "Name a network, or --all: there are lenet5, "),
        (
            ["lenet5", "--int8"],
            2,
            "--int8 needs --calibration DIR, a folder with a few hundred pic",
        ),
        (["lenet5", "--int8", "--fp16"], 2, "Give --fp16 or --int8, not both."),
        (["lenet5", "--calibration", "x"], 2, "--calibration is only for --int8"),
        (["lenet5", "--int8", "--calibration", "x"], 1, "There is no folder x for the calibration"),
        (["lenet5", "--format", "tflite"], 2, "--format is 'tflite', must be onnx, plan or rtx."),
        (["lenet5", "--activation", "relu"], 2, "--activation is 'relu', must be softmax or sigm"),
        (["lenet5", "--opt-batch", "4"], 2, "--opt-batch and --optimization-level are for engines"),
        (["lenet5", "--resize", "40"], 2, "lenet5 reads digits, which are prepared in one way"),
        (["nin", "--preprocessing", "no.json"], 2, "no.json cannot be read (No such file or dir"),
    ],
)
def test_failure_is_one_sentence(
    arguments: list[str], code: int, message: str, build_here: Built
) -> None:
    done = build_here(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1


def test_a_plan_needs_tensorrt(tmp_path: Path) -> None:
    """In a process of its own: other tests plant a TensorRT in this one."""
    done = build(tmp_path, "lenet5", "--format", "plan")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("No plan can be built here: TensorRT is not installed")
    assert done.stderr.count("\n") == 1


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
    options = Options(strict, "fp32", "random", 0, tmp_path)
    with pytest.raises(ParityError, match=r"PyTorch fp32 → ONNX fp32: .* 1e-12 is allowed"):
        run(options)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("name", ["nin_cifar10", "my-flowers", "7", "a_b-c"])
def test_a_valid_model_name(name: str) -> None:
    check_name(name, "nin_cifar10")


@pytest.mark.parametrize("name", ["", "-a", "_a", "A", "a b", "a/b", "a.v1", "blümchen", "a\n"])
def test_an_invalid_model_name(name: str) -> None:
    with pytest.raises(BadName, match="is not a valid model name: use lower-case letters"):
        check_name(name, "nin_cifar10")


def test_users_own_classes_are_published_under_their_name(
    tmp_path: Path, build_here: Built
) -> None:
    torch.manual_seed(0)
    network = find("nin_cifar10")
    flowers = ["daisy", "dandelion", "rose"]
    torch.save(architecture(network, len(flowers)).state_dict(), tmp_path / "flowers.pth")
    (tmp_path / "flowers.txt").write_text("daisy\tn11939491\ndandelion\nrose\n")
    done = build_here(
        *("nin_cifar10", "--weights", "flowers.pth", "--labels", "flowers.txt"),
        *("--name", "my-flowers"),
    )
    assert done.returncode == 0
    assert done.stderr.startswith("WARNING: flowers.pth does not say how its pictures were prep")
    assert "Assumed: resize, crop, interpolation, antialiasing, resize mode, " in done.stderr
    assert "assumed, since the weights do not say it." in done.stdout
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
    recorder = Recorder()
    with serving(served) as url:
        options = Options(network, "fp32", "imagenet", 0, tmp_path, weights_url=url)
        published = run(options, recorder)
    weights = published.model.manifest.weights
    assert (weights.source, weights.file, weights.sha256) == ("imagenet1k_v1", file, digest)
    assert published.model.preprocessing.photo.resize == 40
    downloaded = [completed for task, completed, _ in recorder.reports if task == file]
    assert downloaded[-1] == (served / file).stat().st_size
    cached = tmp_path / "cache" / "convoy" / "weights" / file
    assert cached.with_name(f"{file}.sha256").read_text() == f"{digest}\n"
    assert known_weights(published.folder) == {file: digest}


def test_manifest_says_what_the_version_was_made_of(built: PublishedVersion) -> None:
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


def test_the_report_has_what_was_measured() -> None:
    manifest = pb.Manifest(weights=pb.Weights(source="digits", file="lenet5.pth"))
    manifest.accuracy.add(measured="top-1, held-out fifth", correct=357, total=360)
    manifest.calibration.images, manifest.calibration.refused = 12, 1
    assert render_facts(manifest) == [
        "  357 of 360 correct (99.2%): top-1, held-out fifth",
        "  calibrated on 12 pictures; 1 more were left out, since the gateway refuses them",
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
