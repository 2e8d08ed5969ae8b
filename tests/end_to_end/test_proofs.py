"""A version is ready on a runner only when its golden images come back right there.

Each way of going wrong is a second version of a model of its own, published beside a first one that
is right.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from convoy import Client, errors
from convoy.v1 import classifier_pb2 as pb
from export.console import PublishedVersion

Serve = Callable[..., Any]
EditFacts = Callable[[Path, Callable[[pb.Model], None]], None]

MODEL_FILE = Path("1", "model.onnx")


# ---------------------------------------------------------------- what can be wrong


def swap_labels(version: Path, edit_facts: EditFacts) -> None:
    """Those of the best two of a golden image."""

    def swap(facts: pb.Model) -> None:
        best, next_best = (
            facts.labels[found.index] for found in facts.golden_images[0].expected[:2]
        )
        best.name, next_best.name = next_best.name, best.name

    edit_facts(version, swap)


def swap_channels(version: Path, _: EditFacts) -> None:
    """RGB becomes BGR behind the graph's input; everything else is as it was."""
    model = onnx.load(version / MODEL_FILE)
    nodes = model.graph.node
    place = next(at for at, node in enumerate(nodes) if node.op_type == "Cast")
    cast = nodes[place]
    assert [*cast.input] == ["image"]
    swap = helper.make_node("Gather", ["as given", "order"], [*cast.output], axis=3)  # N×H×W×C
    cast.output[0] = "as given"
    nodes.insert(place + 1, swap)
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "order"))
    onnx.save(model, version / MODEL_FILE)


def truncate(version: Path, _: EditFacts) -> None:
    content = (version / MODEL_FILE).read_bytes()
    (version / MODEL_FILE).write_bytes(content[: len(content) // 2])


def flip_bytes(version: Path, _: EditFacts) -> None:
    """Of the largest weight: the byte of each float that holds its sign."""
    graph = onnx.load(version / MODEL_FILE).graph
    weight = max((tensor.raw_data for tensor in graph.initializer), key=len)
    content = bytearray((version / MODEL_FILE).read_bytes())
    start = content.index(weight)
    for place in range(start + 3, start + len(weight), 4):
        content[place] ^= 0x80
    (version / MODEL_FILE).write_bytes(content)


WRONG_ANSWER = r"golden image .* is answered '.*' [0-9.]+, the build answered '.*' [0-9.]+"
# By the name of the model that it befalls: to whom it is done, what, and what the gateway says.
WRONG = {
    "labels": ("lenet5", swap_labels, WRONG_ANSWER),
    "channels": ("nin_cifar10", swap_channels, WRONG_ANSWER),
    "half": ("lenet5", truncate, r"Protobuf parsing failed"),
    "bytes": ("lenet5", flip_bytes, WRONG_ANSWER),
}


# ---------------------------------------------------------------- what becomes of it


@pytest.fixture(scope="module")
def right(built_nin: PublishedVersion, shipped_lenet5: Path) -> dict[str, Path]:
    """A version that reads grey digits, and one that takes photos in three channels."""
    return {"lenet5": shipped_lenet5, "nin_cifar10": built_nin.folder}


def test_what_is_wrong_is_found_before_it_answers_and_is_named(
    serve: Serve,
    runner_name: str,
    tmp_path: Path,
    right: dict[str, Path],
    edit_facts: EditFacts,
    digit: bytes,
    photos: dict[str, bytes],
) -> None:
    images = {"lenet5": digit, "nin_cifar10": photos["china.jpg"]}
    for name, (network, *_) in WRONG.items():
        shutil.copytree(right[network], tmp_path / "models" / f"{name}.v1")
    gateway = serve(f"--repository={tmp_path / 'models'}", f"--runner={runner_name}")
    gateway.wait_until_ready()

    def ask(name: str, version: str = "") -> tuple[str, list[Any]]:
        answer = client.classify(images[WRONG[name][0]], model=name, version=version)
        return answer.version, [(found.label, round(found.score, 3)) for found in answer.classes]

    def second(name: str) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{gateway.http}/v1/models/{name}?version=2").json()
        return found

    with Client(gateway.grpc) as client:
        before = {name: ask(name) for name in WRONG}
        for name, (_, damage, _) in WRONG.items():
            version = shutil.copytree(tmp_path / "models" / f"{name}.v1", tmp_path / f"{name}.v2")
            damage(version, edit_facts)
            version.rename(tmp_path / "models" / version.name)
        for name, (_, _, reason) in WRONG.items():
            gateway.wait_for(lambda name=name: second(name).get("state") == "STATE_FAILED")
            assert re.search(reason, second(name)["state_reason"]), second(name)["state_reason"]
            with pytest.raises(errors.NotFound, match=rf"not loaded: {name}\.v2: .*; loaded: 1"):
                ask(name, version="2")
        assert {name: ask(name) for name in WRONG} == before
    assert {version for version, _ in before.values()} == {"1"}
