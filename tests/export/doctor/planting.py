"""Faults to plant in a version's folder, and the doctor that looks for them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import typer
from google.protobuf import text_format
from PIL import Image
from tritonclient.grpc.model_config_pb2 import ModelConfig
from typer.testing import CliRunner

from export.doctor.command import doctor
from export.repository.config import FACTS_KEY, manifest_digest

ROOT = Path(__file__).parents[3]
REBUILD = (
    "python export/build.py lenet5 --weights digits --force --replace --repository {repository}"
)
REBUILD_BY_NAME = REBUILD.replace(" --weights digits", "")  # where nothing else can be read

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
        facts_ = json.loads(parameter.string_value)
        change(facts_)
        if digest:
            facts_["manifest_digest"] = manifest_digest(facts_["manifest"])
        parameter.string_value = json.dumps(facts_, ensure_ascii=False)

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
        told: dict[str, object] = {"sha256": sha256, "library": "tensorrt", "version": "10.16.1.11"}
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


def replace_labels_by_a_folder(folder: Path) -> None:
    (folder / "labels.txt").unlink()
    (folder / "labels.txt").mkdir()


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
