"""A healthy repository is passed over in silence; every planted fault is found and mended."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import pytest_asyncio
import typer
from filelock import FileLock
from google.protobuf import text_format
from PIL import Image
from tritonclient.grpc.model_config_pb2 import ModelConfig
from typer.testing import CliRunner

from export.doctor.command import doctor
from export.doctor.folder import Repository, Version
from export.doctor.triton import examine_plan, tensorrt_of
from export.repository.layout import FACTS_KEY, manifest_digest
from server.runners.triton_local import TritonLocalRunner

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "convoy.cli", "doctor"]
REBUILD = (
    "python export/build.py lenet5 --weights digits --force --replace --repository {repository}"
)

app = typer.Typer()
app.command()(doctor)

Json = dict[str, Any]
Plant = Callable[[Path], object]  # spoils a version's folder


def examine(repository: Path, *arguments: str) -> Json:
    """What `convoy doctor --json` prints."""
    result = CliRunner().invoke(app, ["--repository", str(repository), "--json", *arguments])
    assert not result.exception or isinstance(result.exception, SystemExit), result.exception
    document: Json = json.loads(result.stdout)
    assert result.exit_code == (0 if document["healthy"] else 1)
    return document


def problems(document: Json) -> str:
    return "\n".join(finding["problem"] for finding in document["findings"])


# ------------------------------------------------------------------------ planting


def config(change: Callable[[ModelConfig], object]) -> Plant:
    def plant(folder: Path) -> None:
        path = folder / "config.pbtxt"
        message = text_format.Parse(path.read_text(), ModelConfig())
        change(message)
        path.write_text(text_format.MessageToString(message, as_utf8=True))

    return plant


def facts(change: Callable[[Json], object], *, digest: bool = True) -> Plant:
    """Of what the build wrote; the manifest's digest follows unless told not to."""

    def edit(message: ModelConfig) -> None:
        parameter = message.parameters[FACTS_KEY]
        told = json.loads(parameter.string_value)
        change(told)
        if digest:
            told["manifest_digest"] = manifest_digest(told["manifest"])
        parameter.string_value = json.dumps(told, ensure_ascii=False)

    return config(edit)


def graph(change: Callable[[onnx.GraphProto], object]) -> Plant:
    """Another model, as if it had been built so: its hash is in the manifest."""

    def plant(folder: Path) -> None:
        path = folder / "1" / "model.onnx"
        model = onnx.load(path)
        change(model.graph)
        onnx.save(model, path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        facts(lambda told: told["manifest"].update(onnx_sha256=sha256))(folder)

    return plant


def labels(change: Callable[[list[str]], object]) -> Plant:
    """In the facts and in labels.txt alike, with their hash."""

    def plant(folder: Path) -> None:
        names = (folder / "labels.txt").read_text().splitlines()
        change(names)
        text = "".join(f"{name}\n" for name in names)
        (folder / "labels.txt").write_text(text)

        def edit(told: Json) -> None:
            told["labels"] = [{"name": name} for name in names]
            told["manifest"]["labels_sha256"] = hashlib.sha256(text.encode()).hexdigest()

        facts(edit)(folder)

    return plant


def plan(header: bytes = b"ftrt" + bytes(20) + bytes([10, 16, 1, 11]), **engine: object) -> Plant:
    """A version whose file is an engine, as far as its header goes."""

    def plant(folder: Path) -> None:
        (folder / "1" / "model.onnx").unlink()
        (folder / "1" / "model.plan").write_bytes(header + b"layers")
        sha256 = hashlib.sha256(header + b"layers").hexdigest()
        told = {"sha256": sha256, "library": "tensorrt", "version": "10.16.1.11"}
        told |= {"min_batch": 1, "opt_batch": 8, "max_batch": 8} | engine
        facts(lambda each: each["manifest"].update(format="plan", engine=told))(folder)
        config(lambda message: setattr(message, "backend", "tensorrt"))(folder)

    return plant


def file(name: str, content: str | bytes | None) -> Plant:
    """Written, or removed."""

    def plant(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.unlink()
        elif isinstance(content, str):
            path.write_text(content)
        else:
            path.write_bytes(content)

    return plant


def golden(**change: object) -> Plant:
    return facts(lambda told: told["golden_images"][0].update(change))


def noise(side: int) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


def set_batch(graph: onnx.GraphProto) -> None:
    for value in [*graph.input, *graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 1


def rename_output(graph: onnx.GraphProto) -> None:
    graph.output[0].name = graph.node.add(
        op_type="Identity", input=[graph.output[0].name], output=["scores"]
    ).output[0]


def truncate(folder: Path) -> None:
    path = folder / "1" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1000])


def garble(word: bytes) -> Plant:
    """A name that is no UTF-8: ONNX Runtime's error is then none of its own."""

    def plant(folder: Path) -> None:
        path = folder / "1" / "model.onnx"
        path.write_bytes(path.read_bytes().replace(word, b"\xaa" * len(word)))

    return plant


def append(folder: Path) -> None:
    """An unknown field, which changes the file and no number in it."""
    with (folder / "1" / "model.onnx").open("ab") as opened:
        opened.write(b"\xfa\x7f\x01x")


def links_nowhere(name: str) -> Plant:
    def plant(folder: Path) -> None:
        path = folder / name
        path.unlink(missing_ok=True)
        path.symlink_to("/nowhere/model")

    return plant


RM, CHMOD = "rm -r {version}/", "chmod -R a+rX {version}"

# What is spoilt: how, what the doctor must say, and the command.
PLANTS: dict[str, tuple[Plant, str, str]] = {
    "config missing": (
        file("config.pbtxt", None),
        "config.pbtxt: expected a file, found none",
        REBUILD.replace(" --weights digits", ""),
    ),
    "config not text": (
        file("config.pbtxt", b"\xff\xfe"),
        "config.pbtxt: expected text in UTF-8",
        REBUILD.replace(" --weights digits", ""),
    ),
    "config misspelt": (
        file("config.pbtxt", 'max_batch_size: 8\nbackned: "onnxruntime"\n'),
        "at line:column 2:1 .*no field named .*backned",
        REBUILD.replace(" --weights digits", ""),
    ),
    "facts missing": (
        config(lambda message: message.parameters.clear()),
        'expected parameter "convoy.v1.Model", found none',
        REBUILD.replace(" --weights digits", ""),
    ),
    "facts not JSON": (
        config(lambda message: setattr(message.parameters[FACTS_KEY], "string_value", "{")),
        "convoy.v1.Model: expected JSON, found .*line 1 column 2",
        REBUILD.replace(" --weights digits", ""),
    ),
    "facts no object": (
        config(lambda message: setattr(message.parameters[FACTS_KEY], "string_value", "[]")),
        r"convoy.v1.Model: expected an object, found \[\]",
        REBUILD.replace(" --weights digits", ""),
    ),
    "facts not the contract": (
        facts(lambda told: told["input"].update(height="tall")),
        "expected the contract's Model, found .*height",
        REBUILD.replace(" --weights digits", ""),
    ),
    "another name": (
        config(lambda message: setattr(message, "name", "lenet5.v7")),
        "name: expected none, or lenet5.v1, found 'lenet5.v7'",
        REBUILD,
    ),
    "backend of another file": (
        config(lambda message: setattr(message, "backend", "tensorrt")),
        "backend for 1/model.onnx: expected onnxruntime, found 'tensorrt'",
        REBUILD,
    ),
    "no backend": (
        config(lambda message: message.ClearField("backend")),
        "backend for 1/model.onnx: expected onnxruntime, found ''",
        REBUILD,
    ),
    "platform of another": (
        config(lambda message: setattr(message, "platform", "tensorflow_savedmodel")),
        "platform: expected none, found 'tensorflow_savedmodel'",
        REBUILD,
    ),
    "another file named": (
        config(lambda message: setattr(message, "default_model_filename", "net.onnx")),
        "default_model_filename: expected none, found 'net.onnx'",
        REBUILD,
    ),
    "format of another file": (
        facts(lambda told: told["manifest"].update(format="plan")),
        "manifest, format: expected onnx, found 'plan'",
        REBUILD,
    ),
    "model missing": (
        file("1/model.onnx", None),
        "1/model.onnx: expected a file, found none",
        REBUILD,
    ),
    "model truncated": (truncate, "expected an ONNX model, found .*parsing failed", REBUILD),
    "input garbled": (garble(b"image"), "expected an ONNX model, found .*utf-8", REBUILD),
    "operator garbled": (garble(b"Shape"), "expected an ONNX model, found .*utf-8", REBUILD),
    "model changed": (
        append,
        r"1/model.onnx, sha256 as in the manifest: expected \w{64}, found \w{64}",
        REBUILD,
    ),
    "manifest edited": (
        facts(lambda told: told["manifest"].update(precision="int8"), digest=False),
        "manifest_digest of the manifest: expected .*, found",
        REBUILD,
    ),
    "config's input type": (
        config(lambda message: setattr(message.input[0], "data_type", 11)),
        r"config.pbtxt, input image: expected UINT8 32×32×1, found FP32 32×32×1",
        REBUILD,
    ),
    "config's input shape": (
        config(lambda message: message.input[0].dims.__setitem__(0, 28)),
        "config.pbtxt, input image: expected UINT8 32×32×1, found UINT8 28×32×1",
        REBUILD,
    ),
    "config's output missing": (
        config(lambda message: message.output.pop()),
        "config.pbtxt, output batch_size: expected INT32 1, found none",
        REBUILD,
    ),
    "facts' input shape": (
        facts(lambda told: told["input"].update(channels=3)),
        "1/model.onnx, input image: expected UINT8 32×32×3, found UINT8 32×32×1",
        REBUILD,
    ),
    "graph's output renamed": (
        graph(rename_output),
        "1/model.onnx, output scores: expected none, found FP32",
        REBUILD,
    ),
    "graph's batch fixed": (
        graph(set_batch),
        "batch of input image: expected any, found .*1",
        REBUILD,
    ),
    "no batches": (
        config(lambda message: setattr(message, "max_batch_size", 0)),
        "max_batch_size: expected 1 at least, found 0",
        REBUILD,
    ),
    "preferred batches": (
        config(lambda message: message.dynamic_batching.preferred_batch_size.append(4)),
        "dynamic_batching.preferred_batch_size: expected none, found it set: .*surprising",
        REBUILD,
    ),
    "priorities": (
        config(lambda message: setattr(message.dynamic_batching, "priority_levels", 2)),
        "dynamic_batching.priority_levels: .*stalls",
        REBUILD,
    ),
    "queue policy": (
        config(
            lambda message: setattr(
                message.dynamic_batching.default_queue_policy, "max_queue_size", 9
            )
        ),
        "dynamic_batching.default_queue_policy: .*stalls",
        REBUILD,
    ),
    "CUDA graphs": (
        config(lambda message: setattr(message.optimization.cuda, "graphs", True)),
        "optimization.cuda.graphs: .*request before",
        REBUILD,
    ),
    "response cache": (
        config(lambda message: setattr(message.response_cache, "enable", True)),
        "response_cache.enable: .*outlive",
        REBUILD,
    ),
    "preprocessing of another size": (
        facts(lambda told: told.update(preprocessing={"digit": {"size": 28, "box": 20}})),
        "preprocessing: expected digit 32×32×1, found digit 28×28×1",
        REBUILD,
    ),
    "no preprocessing": (
        facts(lambda told: told.pop("preprocessing")),
        "preprocessing: expected photo or digit, found none",
        REBUILD,
    ),
    "a photo for a grey network": (
        facts(lambda told: told.update(preprocessing={"photo": {"resize": 40, "crop": 32}})),
        "preprocessing: expected photo 32×32×1, found photo 32×32×3",
        REBUILD,
    ),
    "box larger than the picture": (
        facts(lambda told: told["preprocessing"]["digit"].update(box=40)),
        "preprocessing: expected box within size, found 40 within 32",
        REBUILD,
    ),
    "a label too few": (
        labels(lambda names: names.pop(0)),
        "labels: expected 10, as many as probabilities, found 9 labels",
        REBUILD,
    ),
    "labels.txt of another": (
        file("labels.txt", "nought\n1\n2\n3\n4\n5\n6\n7\n8\n9\n"),
        "labels.txt, line 1: expected '0', found 'nought'",
        REBUILD,
    ),
    "labels.txt missing": (
        file("labels.txt", None),
        "labels.txt: expected a file, found none",
        REBUILD,
    ),
    "labels of another hash": (
        facts(lambda told: told["manifest"].update(labels_sha256="00")),
        "labels, their sha256 as in the manifest: expected 00",
        REBUILD,
    ),
    "no golden images": (
        facts(lambda told: told.pop("golden_images")),
        "golden images: expected one to three, found none",
        REBUILD,
    ),
    "golden image too large": (
        golden(content=noise(140)),
        "golden image .*: expected 16000 bytes at most, found [12]",
        REBUILD,
    ),
    "golden image no image": (
        golden(content=base64.b64encode(b"GIF89a").decode()),
        "golden image .*: expected a JPEG or PNG, found cannot identify",
        REBUILD,
    ),
    "golden image of other labels": (
        facts(lambda told: told["golden_images"][0]["expected"][0].update(label="cat")),
        r"golden image .*, label of class \d: expected '\d', found 'cat'",
        REBUILD,
    ),
    "golden image without answers": (
        golden(expected=[]),
        "golden image .*: expected scores within a tolerance, found 0",
        REBUILD,
    ),
    "a plan of RTX": (
        plan(b"vtrt" + bytes(20) + bytes([10, 16, 1, 11])),
        "1/model.plan: expected a plan of TensorRT, found an engine of tensorrt_rtx",
        REBUILD,
    ),
    "a plan of another version": (
        plan(version="11.4.0.1"),
        "1/model.plan, its TensorRT as in the manifest: expected 11.4.0.1, found 10.16.1.11",
        REBUILD,
    ),
    "a plan that is none": (plan(b"PK"), "1/model.plan is no TensorRT engine", REBUILD),
    "a plan that was changed": (
        plan(sha256="00"),
        "1/model.plan, sha256 as in the manifest: expected 00",
        REBUILD,
    ),
    "a profile too small": (
        plan(opt_batch=4, max_batch=4),
        "engine's profile, .*: expected 1, some, 8 at least .*, found 1, 4, 4",
        REBUILD,
    ),
    "a stray file": (
        file("notes.txt", "mine"),
        "notes.txt: expected config.pbtxt, labels.txt, 1, 1/model.onnx alone, found something else",
        f"{RM}notes.txt",
    ),
    "a stray file beside the model": (
        file("1/model.onnx.bak", "mine"),
        "1/model.onnx.bak: expected .*, found something else",
        f"{RM}1/model.onnx.bak",
    ),
    "two models": (
        file("1/model.plan", "mine"),
        "1/model.plan: expected .*, found something else",
        f"{RM}1/model.plan",
    ),
    "a second version folder": (
        file("2/model.onnx", "mine"),
        "2: expected .*, found a second version",
        f"{RM}2",
    ),
    "a link to nowhere": (
        links_nowhere("more"),
        "more: expected .*, found a link to /nowhere/model, which is not there",
        f"{RM}more",
    ),
    "a model that is a link to nowhere": (
        links_nowhere("1/model.onnx"),
        "1/model.onnx: expected a file, found a link to /nowhere/model",
        REBUILD,
    ),
    "a file nobody may read": (
        lambda folder: (folder / "labels.txt").chmod(0),
        "labels.txt: expected a file that may be read, found one that may not",
        CHMOD,
    ),
    "a folder where a file should be": (
        lambda folder: [(folder / "labels.txt").unlink(), (folder / "labels.txt").mkdir()],
        "labels.txt: expected a file, found something else",
        REBUILD,
    ),
}
# Faults that show at more than one check, or tensor.
MANIFOLD = {
    "model truncated",
    "input garbled",
    "operator garbled",
    "facts' input shape",
    "graph's output renamed",
    "graph's batch fixed",
    "a label too few",
}


# ------------------------------------------------------------------------ healthy


def test_what_ships_is_healthy() -> None:
    document = examine(ROOT / "model_repository")
    assert document["findings"] == []
    assert "lenet5.v1" in document["versions"]


def test_a_healthy_plan_is_passed_over(repository: Path) -> None:
    plan()(repository / "lenet5.v1")
    assert examine(repository)["findings"] == []


@pytest.mark.slow
def test_a_photo_network_is_healthy(large_repository: Path) -> None:
    document = examine(large_repository)
    assert document["findings"] == []
    assert "resnet152.v1" in document["versions"]


def test_platform_says_the_same_as_backend(repository: Path) -> None:
    def edit(message: ModelConfig) -> None:
        message.ClearField("backend")
        message.platform = "onnxruntime_onnx"

    config(edit)(repository / "lenet5.v1")
    assert examine(repository)["findings"] == []


def test_fields_of_a_newer_contract_are_passed_over(repository: Path) -> None:
    facts(lambda told: told.update(colour="red"))(repository / "lenet5.v1")
    assert examine(repository)["findings"] == []


def test_what_belongs_beside_versions_is_passed_over(repository: Path) -> None:
    for name in (".lenet5.lock", ".lenet5.highest", ".gitignore", "README.md"):
        (repository / name).touch()
    (repository / "lenet5.v2.withdrawn").mkdir()
    assert examine(repository)["findings"] == []


# ------------------------------------------------------------------------ faults of a version


@pytest.mark.parametrize("fault", PLANTS)
def test_a_planted_fault_is_found_with_what_mends_it(fault: str, repository: Path) -> None:
    plant, words, remedy = PLANTS[fault]
    folder = repository / "lenet5.v1"
    plant(folder)
    document = examine(repository)
    found = [each for each in document["findings"] if re.search(words, each["problem"])]
    assert len(found) == 1, document["findings"]
    assert found == document["findings"] or fault in MANIFOLD, document["findings"]
    assert found[0]["version"] == "lenet5.v1"
    assert found[0]["remedy"] == remedy.format(repository=repository, version=folder)
    assert not document["healthy"]


@pytest.mark.parametrize(
    "fault", [fault for fault, (_, _, remedy) in PLANTS.items() if not remedy.startswith("python")]
)
def test_a_remedy_mends(fault: str, repository: Path) -> None:
    PLANTS[fault][0](repository / "lenet5.v1")
    remedies = {finding["remedy"] for finding in examine(repository)["findings"]}
    for remedy in remedies:
        subprocess.run(shlex.split(remedy), check=True)
    assert examine(repository)["findings"] == []


@pytest.mark.slow
def test_a_rebuild_mends(repository: Path) -> None:
    labels(lambda names: names.reverse())(repository / "lenet5.v1")
    file("1/model.onnx", b"damaged")(repository / "lenet5.v1")
    (remedy,) = {finding["remedy"] for finding in examine(repository)["findings"]}
    words = [sys.executable, *shlex.split(remedy)[1:]]
    subprocess.run(words, cwd=ROOT, check=True)
    assert examine(repository)["findings"] == []


def test_a_version_that_is_not_the_highest_is_withdrawn(repository: Path) -> None:
    shutil.copytree(repository / "lenet5.v1", repository / "lenet5.v2")
    file("1/model.onnx", b"damaged")(repository / "lenet5.v1")
    remedy = examine(repository)["findings"][0]["remedy"]
    assert remedy == f"mv {repository}/lenet5.v1 {repository}/lenet5.v1.withdrawn"
    subprocess.run(shlex.split(remedy), check=True)
    assert examine(repository)["findings"] == []


def test_one_without_a_build_command_is_rolled_back(repository: Path) -> None:
    shutil.copytree(repository / "lenet5.v1", repository / "lenet5.v2")
    file("config.pbtxt", "{")(repository / "lenet5.v2")
    (finding,) = examine(repository)["findings"]
    assert finding["remedy"] == f"convoy rollback lenet5 --repository {repository}"
    words = [sys.executable, "-m", "convoy.cli", *shlex.split(finding["remedy"])[1:]]
    subprocess.run(words, check=True)
    assert examine(repository)["findings"] == []


def test_one_of_an_unknown_network_steps_aside(repository: Path) -> None:
    folder = (repository / "lenet5.v1").rename(repository / "my-flowers.v3")
    file("config.pbtxt", "{")(folder)
    (finding,) = examine(repository)["findings"]
    assert finding["remedy"] == f"mv {folder} {folder}.withdrawn"


def test_a_build_command_that_is_none_of_ours_is_never_a_remedy(repository: Path) -> None:
    facts(lambda told: told["manifest"].update(build_command="rm -rf /"))(repository / "lenet5.v1")
    file("labels.txt", None)(repository / "lenet5.v1")
    (finding,) = examine(repository)["findings"]
    assert finding["remedy"] == PLANTS["config missing"][2].format(repository=repository)


# ------------------------------------------------------------------------ beside the versions


ROOT_PLANTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a stray folder": (
        lambda path: (path / "old").mkdir(),
        "old: a folder that is no version",
        "rm -r {repository}/old",
    ),
    "a stray file": (
        lambda path: (path / "resnet152.pth").touch(),
        "resnet152.pth: a file that is no version",
        "rm -r {repository}/resnet152.pth",
    ),
    "a file like a version": (
        lambda path: (path / "lenet5.v2").touch(),
        "lenet5.v2: a file that is no version",
        "rm -r {repository}/lenet5.v2",
    ),
    "a number with a zero": (
        lambda path: (path / "lenet5.v1").rename(path / "lenet5.v01"),
        "lenet5.v01: expected a name of .*, found what no gateway serves",
        "mv {repository}/lenet5.v01 {repository}/lenet5.v1",
    ),
    "a number that is taken": (
        lambda path: shutil.copytree(path / "lenet5.v1", path / "lenet5.v01"),
        "lenet5.v01: expected a name of .*, found what no gateway serves",
        "mv {repository}/lenet5.v01 {repository}/lenet5.v2",
    ),
    "a name with bad letters": (
        lambda path: (path / "lenet5.v1").rename(path / "My Net.v1"),
        "My Net.v1: expected a name of .*, found what no gateway serves",
        "mv '{repository}/My Net.v1' {repository}/my-net.v1",
    ),
    "a link to nowhere": (
        lambda path: (path / "vgg16.v1").symlink_to("/nowhere/vgg16.v1"),
        "vgg16.v1 is a link to /nowhere/vgg16.v1, which is not there",
        "rm -r {repository}/vgg16.v1",
    ),
    "a version that its successor should have replaced": (
        lambda path: (path / "lenet5.v1").rename(path / "lenet5.v1.replaced"),
        "lenet5.v1 is not there: the build that replaces it was killed",
        "mv {repository}/lenet5.v1.replaced {repository}/lenet5.v1",
    ),
}


@pytest.mark.parametrize("fault", ROOT_PLANTS)
def test_what_lies_beside_versions_is_found_and_mended(fault: str, repository: Path) -> None:
    plant, words, remedy = ROOT_PLANTS[fault]
    shutil.copytree(repository / "lenet5.v1", repository / "another.v1")
    plant(repository)
    document = examine(repository)
    (finding,) = document["findings"]
    assert re.search(words, finding["problem"])
    assert (finding["version"], finding["is_fault"]) == ("", True)
    assert finding["remedy"] == remedy.format(repository=repository)
    subprocess.run(shlex.split(finding["remedy"]), check=True)
    assert examine(repository)["findings"] == []


def test_an_empty_repository_is_a_fault(tmp_path: Path) -> None:
    (finding,) = examine(tmp_path)["findings"]
    assert finding["problem"] == "expected versions NAME.vN, found none"
    assert finding["remedy"] == f"python export/build.py lenet5 --repository {tmp_path}"


def test_what_a_killed_build_left_is_noted(repository: Path) -> None:
    (repository / "lenet5.v2.staging").mkdir()
    (repository / ".lenet5.v2.lock").touch()
    document = examine(repository)
    assert problems(document).startswith("lenet5.v2.staging is left of a build that was killed")
    assert document["healthy"]


def test_a_build_at_work_is_passed_over(repository: Path) -> None:
    (repository / "lenet5.v2.staging").mkdir()
    with FileLock(repository / ".lenet5.v2.lock"):
        assert examine(repository)["findings"] == []


def test_a_model_that_is_withdrawn_altogether_is_noted(repository: Path) -> None:
    (repository / "lenet5.v1").rename(repository / "lenet5.v1.withdrawn")
    document = examine(repository)
    (finding,) = document["findings"]
    assert "all versions of lenet5 are withdrawn" in finding["problem"]
    assert document["healthy"]
    words = [sys.executable, "-m", "convoy.cli", *shlex.split(finding["remedy"])[1:]]
    subprocess.run(words, check=True)
    assert examine(repository)["findings"] == []


# ------------------------------------------------------------------------ the command


def run(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "100"}
    environment.pop("CONVOY_REPOSITORY", None)
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_a_healthy_repository_is_one_line(repository: Path) -> None:
    done = run("--repository", str(repository))
    assert (done.returncode, done.stdout) == (0, "1 version, nothing wrong\n")
    assert done.stderr == ""


def test_a_fault_is_shown_below_its_version(repository: Path) -> None:
    shutil.copytree(repository / "lenet5.v1", repository / "lenet5.v2")
    file("1/notes.txt", "mine")(repository / "lenet5.v2")
    done = run("--repository", str(repository))
    assert done.returncode == 1
    stray = f"{repository}/lenet5.v2/1/notes.txt"
    first, second, problem, remedy, last = done.stdout.splitlines()
    assert (first, second) == ("✓ lenet5.v1", "✗ lenet5.v2")
    assert problem.startswith("    ✗ 1/notes.txt: expected ")
    assert remedy == f"      → rm -r {stray}"
    assert last == "2 versions, 1 of them with faults; 1 fault in all"
    document = json.loads(run("--repository", str(repository), "--json").stdout)
    assert document == {
        "repository": str(repository),
        "healthy": False,
        "versions": ["lenet5.v1", "lenet5.v2"],
        "findings": [
            {
                "version": "lenet5.v2",
                "check": "files",
                "problem": problem.removeprefix("    ✗ "),
                "remedy": f"rm -r {stray}",
                "is_fault": True,
            }
        ],
    }


def test_what_stands_in_files_does_not_steer_the_terminal(repository: Path) -> None:
    config(lambda message: setattr(message, "platform", "x"))(repository / "lenet5.v1")
    (repository / "\x1b[31mred").touch()
    done = run("--repository", str(repository))
    assert "\x1b" not in done.stdout
    assert "red: a file that is no version" in done.stdout


@pytest.mark.parametrize("name", ["lenet5", "lenet5.v2"])
def test_names_choose_what_is_examined(name: str, repository: Path) -> None:
    shutil.copytree(repository / "lenet5.v1", repository / "lenet5.v2")
    shutil.copytree(repository / "lenet5.v1", repository / "another.v1")
    file("labels.txt", None)(repository / "another.v1")
    (repository / "stray").mkdir()
    document = examine(repository, name)
    assert document["healthy"]
    assert document["versions"] == [
        version for version in ("lenet5.v1", "lenet5.v2") if version.startswith(name)
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet9"], "has no resnet9; it has lenet5.v1"),
        (["--triton", "localhost"], "'localhost' is not HOST:PORT"),
        (["--repository", "/nowhere/models"], "/nowhere/models is no folder"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], words: str, repository: Path) -> None:
    result = CliRunner().invoke(
        app, arguments, env={"CONVOY_REPOSITORY": str(repository), "COLUMNS": "300"}
    )
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


def test_help_teaches() -> None:
    shown = run("--help").stdout
    for words in ("--repository", "--triton", "--json", "convoy doctor resnet152 lenet5.v2"):
        assert words in shown


def test_it_needs_no_more_than_serving_installs(repository: Path) -> None:
    code = f"""
import sys
from export.doctor.command import doctor
try:
    doctor(None, __import__("pathlib").Path({str(repository)!r}), None, False)
except BaseException as end:
    print(type(end).__name__, getattr(end, "exit_code", end))
print({{"torch", "onnx", "server", "tensorrt", "sklearn"}} & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 version, nothing wrong\nExit 0\nset()\n"


# ------------------------------------------------------------------------ with a running Triton


class ClosedTriton(TritonLocalRunner):
    """A Triton that loads what it finds at its start, and lets nobody load or unload."""

    def _command_line(self, server_path: Path, backends_path: Path) -> list[str]:
        return [*super()._command_line(server_path, backends_path), "--model-control-mode=none"]


@pytest_asyncio.fixture
async def triton(tritonserver: Path, repository: Path) -> AsyncIterator[TritonLocalRunner]:
    shutil.copytree(repository / "lenet5.v1", repository / "lenet5.v2")
    runner = TritonLocalRunner(repository)
    await runner.start()
    yield runner
    await runner.close()


async def test_a_running_triton_is_compared_with_the_folders(
    triton: TritonLocalRunner, repository: Path, tmp_path: Path
) -> None:
    async def ask(path: Path = repository) -> Json:
        return await asyncio.to_thread(examine, path, "--triton", triton.address)

    await triton.load("lenet5.v1")
    assert (await ask())["findings"] == []  # lenet5.v2 can be loaded by who wants it

    facts(lambda told: told["manifest"].update(paper="another"))(repository / "lenet5.v1")
    (finding,) = (await ask())["findings"]
    assert "found what it loaded before the folder changed" in finding["problem"]
    load = "http://127.0.0.1:8000/v2/repository/models/lenet5.v1/load"
    assert finding["remedy"] == f"curl -X POST {load}"
    await triton.unload("lenet5.v1")
    await triton.load("lenet5.v1")
    assert (await ask())["findings"] == []

    another = tmp_path / "another"
    shutil.copytree(repository / "lenet5.v1", another / "lenet5.v9")
    (finding,) = (await ask(another))["findings"]
    assert "found no lenet5.v9 in its repository" in finding["problem"]
    start = f"tritonserver --model-repository={another} --model-control-mode=explicit"
    assert finding["remedy"] == start

    intact = (repository / "lenet5.v2" / "1" / "model.onnx").read_bytes()
    file("1/model.onnx", b"damaged")(repository / "lenet5.v2")
    with pytest.raises(Exception, match="does not load"):
        await triton.load("lenet5.v2")
    file("1/model.onnx", intact)(repository / "lenet5.v2")
    (finding,) = (await ask())["findings"]
    assert re.search("found that it cannot load it: .*Protobuf parsing failed", finding["problem"])
    assert finding["remedy"].endswith("/lenet5.v2/load")

    plan()(repository / "lenet5.v2")
    notes = [each for each in (await ask())["findings"] if not each["is_fault"]]
    assert [each["problem"] for each in notes] == [
        "which TensorRT Triton 2.51.0 has is not known here; the plan wants 10.16.1.11"
    ]


async def test_a_triton_that_lets_nobody_load_is_noted(
    tritonserver: Path, repository: Path
) -> None:
    runner = ClosedTriton(repository)
    await runner.start()
    try:
        shutil.copytree(repository / "lenet5.v1", repository / "lenet5.v2")
        document = await asyncio.to_thread(examine, repository, "--triton", runner.address)
    finally:
        await runner.close()
    control, late = document["findings"]
    assert control["problem"].startswith("model control: expected explicit, found closed")
    assert not control["is_fault"]
    assert "found it not loaded" in late["problem"] or "found no lenet5.v2" in late["problem"]


def test_where_no_triton_answers_that_is_a_fault(repository: Path) -> None:
    (finding,) = examine(repository, "--triton", "127.0.0.1:1")["findings"]
    assert finding["problem"].startswith("Triton at 127.0.0.1:1: expected an answer, found failed")


def test_a_plan_wants_the_tensorrt_of_its_own_version(repository: Path) -> None:
    plan()(repository / "lenet5.v1")
    version = Version(Repository(repository, is_default=True), repository / "lenet5.v1")
    assert list(examine_plan(version, "2.69.0", "load")) == []
    (finding,) = examine_plan(version, "2.70.0", "load")
    assert "TensorRT as in Triton 2.70.0: expected 11.x, found 10.16.1.11" in finding.problem
    assert finding.remedy == "python export/build.py lenet5 --weights digits --force --replace"
    assert finding.is_fault
    (note,) = examine_plan(version, "2.51.0", "load")
    assert (note.remedy, note.is_fault) == ("load", False)


@pytest.mark.parametrize(
    ("triton", "tensorrt"),
    [
        ("2.51.0", None),
        ("2.65.0", None),
        ("2.66.0", 10),
        ("2.69.1", 10),
        ("2.70.0", 11),
        ("2.72.0dev", 11),
        ("unknown", None),
    ],
)
def test_a_release_of_triton_tells_its_tensorrt(triton: str, tensorrt: int | None) -> None:
    assert tensorrt_of(triton) == tensorrt
