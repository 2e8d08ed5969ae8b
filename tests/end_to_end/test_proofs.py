"""A version is ready on a runner only when the runner answers its golden images correctly.

Each fault is the second version of a model, published beside a correct first one.
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


# ---------------------------------------------------------------- faults


def swap_labels(version: Path, edit_facts: EditFacts) -> None:
    """Swaps the labels of the best two classes of a golden image."""

    def swap(facts: pb.Model) -> None:
        best, next_best = (
            facts.labels[found.index] for found in facts.golden_images[0].expected[:2]
        )
        best.name, next_best.name = next_best.name, best.name

    edit_facts(version, swap)


def swap_channels(version: Path, _: EditFacts) -> None:
    """Turns RGB into BGR behind the graph's input; everything else is unchanged."""
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
    """Flips the sign of each float of the largest weight."""
    graph = onnx.load(version / MODEL_FILE).graph
    weight = max((tensor.raw_data for tensor in graph.initializer), key=len)
    content = bytearray((version / MODEL_FILE).read_bytes())
    start = content.index(weight)
    for place in range(start + 3, start + len(weight), 4):
        content[place] ^= 0x80
    (version / MODEL_FILE).write_bytes(content)


WRONG_ANSWER = r"golden image .* is answered '.*' [0-9.]+, the build answered '.*' [0-9.]+"
# By the name of the faulty model: the network, the fault, and the reason that the gateway gives.
WRONG = {
    "labels": ("lenet5", swap_labels, WRONG_ANSWER),
    # Of random weights: the classes may be the same, and their heat-maps differ.
    "channels": ("nin_cifar10", swap_channels, rf"{WRONG_ANSWER}|the heat-map of '.*' differs"),
    "half": ("lenet5", truncate, r"Protobuf parsing failed"),
    "bytes": ("lenet5", flip_bytes, WRONG_ANSWER),
}


# ---------------------------------------------------------------- tests


@pytest.fixture(scope="module")
def right(built_nin: PublishedVersion, shipped_lenet5: Path) -> dict[str, Path]:
    """A version for grey digits, and one for colour photos."""
    return {"lenet5": shipped_lenet5, "nin_cifar10": built_nin.folder}


def test_a_faulty_version_answers_nothing_and_its_fault_is_named(
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
        return answer.version, [(class_.label, round(class_.score, 3)) for class_ in answer.classes]

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
