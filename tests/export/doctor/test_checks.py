"""A healthy version passes without a word; every planted fault is reported with its fix."""

from __future__ import annotations

import base64
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tritonclient.grpc.model_config_pb2 import ModelConfig

from export.repository.config import FACTS_KEY
from tests.export.doctor.planting import (
    REBUILD,
    REBUILD_BY_NAME,
    ROOT,
    Plant,
    append,
    config,
    examine,
    facts,
    file,
    garble,
    golden,
    graph,
    labels,
    links_nowhere,
    noise,
    plan,
    rename_output,
    replace_labels_by_a_folder,
    set_batch,
    truncate,
)

RM, CHMOD = "rm -r {version}/", "chmod -R a+rX {version}"

# The fault: how to plant it, what the doctor reports (a pattern), and the command that fixes it.
PLANTS: dict[str, tuple[Plant, str, str]] = {
    "config missing": (
        file("config.pbtxt", None),
        "config.pbtxt: expected a file, found none",
        REBUILD_BY_NAME,
    ),
    "config not text": (
        file("config.pbtxt", b"\xff\xfe"),
        "config.pbtxt: expected text in UTF-8",
        REBUILD_BY_NAME,
    ),
    "config misspelt": (
        file("config.pbtxt", 'max_batch_size: 8\nbackned: "onnxruntime"\n'),
        "at line:column 2:1 .*no field named .*backned",
        REBUILD_BY_NAME,
    ),
    "facts missing": (
        config(lambda message: message.parameters.clear()),
        'expected parameter "convoy.v1.Model", found none',
        REBUILD_BY_NAME,
    ),
    "facts not JSON": (
        config(lambda message: setattr(message.parameters[FACTS_KEY], "string_value", "{")),
        "convoy.v1.Model: expected JSON, found .*line 1 column 2",
        REBUILD_BY_NAME,
    ),
    "facts no object": (
        config(lambda message: setattr(message.parameters[FACTS_KEY], "string_value", "[]")),
        r"convoy.v1.Model: expected an object, found \[\]",
        REBUILD_BY_NAME,
    ),
    "facts not the contract": (
        facts(lambda told: told["input"].update(height="tall")),
        "expected the contract's Model, found .*height",
        REBUILD_BY_NAME,
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
        "config.pbtxt, output unfamiliar: expected FP32 1, found none",
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
        "max_batch_size: expected at least 1, found 0",
        REBUILD,
    ),
    "preferred batches": (
        config(lambda message: message.dynamic_batching.preferred_batch_size.append(4)),
        "dynamic_batching.preferred_batch_size: expected none, found a value: .*surprising",
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
        "optimization.cuda.graphs: .*previous request",
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
        "golden image .*: expected at most 16000 bytes, found [12]",
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
    "a plan that is none": (plan(b"PK"), "1/model.plan is not a TensorRT engine", REBUILD),
    "a plan that was changed": (
        plan(sha256="00"),
        "1/model.plan, sha256 as in the manifest: expected 00",
        REBUILD,
    ),
    "a profile too small": (
        plan(opt_batch=4, max_batch=4),
        "engine's profile: .*: expected 1, any, at least 8 .*, found 1, 4, 4",
        REBUILD,
    ),
    "a stray file": (
        file("notes.txt", "mine"),
        "notes.txt: expected only config.pbtxt, labels.txt, 1, 1/model.onnx, found something else",
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
        "more: expected .*, found a link to /nowhere/model, which does not exist",
        f"{RM}more",
    ),
    "a model that is a link to nowhere": (
        links_nowhere("1/model.onnx"),
        "1/model.onnx: expected a file, found a link to /nowhere/model",
        REBUILD,
    ),
    "a file nobody may read": (
        lambda folder: (folder / "labels.txt").chmod(0),
        "labels.txt: expected a readable file, found one that is not",
        CHMOD,
    ),
    "a folder where a file should be": (
        replace_labels_by_a_folder,
        "labels.txt: expected a file, found something else",
        REBUILD,
    ),
}
# Faults that more than one check, or tensor, reports.
MANIFOLD = {
    "model truncated",
    "input garbled",
    "operator garbled",
    "facts' input shape",
    "graph's output renamed",
    "graph's batch fixed",
    "a label too few",
}


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
    assert "resnet18.v1" in document["versions"]


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


@pytest.mark.parametrize("fault", PLANTS)
def test_a_planted_fault_is_found_with_what_fixes_it(fault: str, repository: Path) -> None:
    plant, words, remedy = PLANTS[fault]
    folder = repository / "lenet5.v1"
    plant(folder)
    document = examine(repository)
    found = [finding for finding in document["findings"] if re.search(words, finding["problem"])]
    assert len(found) == 1, document["findings"]
    assert found == document["findings"] or fault in MANIFOLD, document["findings"]
    assert found[0]["version"] == "lenet5.v1"
    assert found[0]["remedy"] == remedy.format(repository=repository, version=folder)
    assert not document["healthy"]


@pytest.mark.parametrize(
    "fault", [fault for fault, (_, _, remedy) in PLANTS.items() if not remedy.startswith("python")]
)
def test_a_remedy_fixes_it(fault: str, repository: Path) -> None:
    PLANTS[fault][0](repository / "lenet5.v1")
    remedies = {finding["remedy"] for finding in examine(repository)["findings"]}
    for remedy in remedies:
        subprocess.run(shlex.split(remedy), check=True)
    assert examine(repository)["findings"] == []


@pytest.mark.slow
def test_a_rebuild_fixes_it(repository: Path) -> None:
    labels(lambda names: names.reverse())(repository / "lenet5.v1")
    file("1/model.onnx", b"damaged")(repository / "lenet5.v1")
    (remedy,) = {finding["remedy"] for finding in examine(repository)["findings"]}
    words = [sys.executable, *shlex.split(remedy)[1:]]
    subprocess.run(words, cwd=ROOT, check=True)
    assert examine(repository)["findings"] == []
