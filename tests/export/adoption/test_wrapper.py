"""Whatever a file takes and gives, the graph around it answers as the file does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from convoy.v1 import classifier_pb2 as pb
from export.adoption.classifier import Classifier, read_classifier
from export.adoption.given import given_runtime
from export.adoption.onnx_file import read_onnx_file
from export.adoption.wrapper import Scores, wrap
from export.catalog import Network, photo
from export.proof.evidence import feature_cosines, map_differences
from export.proof.parity import onnx_answer
from export.proof.runtimes import Runtime, onnx_runtime
from tests.export.adoption.networks import (
    ANY_BATCH,
    CLASSES,
    SIDE,
    ChannelsLast,
    FromPixels,
    classifier,
    export,
    planes,
)

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
PIXELS = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return classifier()


def row(order: pb.ChannelOrder = pb.RGB) -> Network:
    preparation = photo(36, SIDE)
    preparation.photo.channel_order = order
    return Network(
        name="",
        paper="",
        architecture="",
        size=SIDE,
        mean=MEAN,
        std=STD,
        preprocessing=preparation,
        labels=list,
        weights="",
    )


class Wrapped:
    def __init__(self, path: Path, scores: Scores, prepared: Network) -> None:
        self.given: Classifier = read_classifier(read_onnx_file(path))
        self.model = wrap(self.given, prepared, scores)
        self.path = path.with_suffix(".wrapped")
        self.path.write_bytes(self.model.SerializeToString())
        self.file: Runtime = given_runtime(self.given, prepared, scores)
        self.graph: Runtime = onnx_runtime(self.path)


def expected(network: nn.Module, order: slice) -> npt.NDArray[np.float32]:
    """By torch alone."""
    values = ((PIXELS / 255 - np.array(MEAN)) / np.array(STD)).astype(np.float32)
    with torch.no_grad():
        logits = network(torch.from_numpy(values[..., order].transpose(0, 3, 1, 2).copy()))
    return np.asarray(logits.softmax(1))


Export = Callable[[nn.Module, Path], Path]
FILES: dict[str, Export] = {
    "any batch": lambda net, path: export(net, path, planes(2), **ANY_BATCH),
    "four at once": lambda net, path: export(net, path, planes(4)),
    "three at once": lambda net, path: export(net, path, planes(3)),
    "opset 9": lambda net, path: export(net, path, planes(2), opset_version=9, **ANY_BATCH),
    "opset 11, four": lambda net, path: export(net, path, planes(4), opset_version=11),
    "data beside it": lambda net, path: export(
        net, path, planes(2), dynamo=True, dynamic_shapes=({0: "n"},), external_data=True
    ),
    "Keras": lambda net, path: export(ChannelsLast(net), path, planes(2), **ANY_BATCH),
    "Keras, four": lambda net, path: export(ChannelsLast(net), path, planes(4)),
    "float16": lambda net, path: export(net.half(), path, planes(2).half(), **ANY_BATCH),
}
TOLERANCE = {"float16": 5e-3}  # where others agree to 1e-5


@pytest.mark.parametrize("order", [pb.RGB, pb.BGR])
@pytest.mark.parametrize("name", FILES)
def test_the_graph_answers_as_the_network(
    name: str, order: pb.ChannelOrder, tmp_path: Path
) -> None:
    network = classifier()
    reference = expected(network, slice(None, None, -1 if order == pb.BGR else 1))
    wrapped = Wrapped(FILES[name](network, tmp_path / "given.onnx"), "logits", row(order))
    tolerance = TOLERANCE.get(name, 1e-5)
    for size in (1, 2, 3):
        answer = wrapped.graph.answer(PIXELS[:size])  # checks batch_size
        assert np.abs(answer - reference[:size]).max() < tolerance
    assert np.abs(wrapped.file.answer(PIXELS) - reference).max() < tolerance
    assert reference.argmax(1).tolist() == wrapped.graph.answer(PIXELS).argmax(1).tolist()
    assert wrapped.given.features == 16 and wrapped.given.map_size == (7, 7)
    given, graph = wrapped.file.evidence(PIXELS), wrapped.graph.evidence(PIXELS)
    for image in range(3):
        pair = given.of_one(image), graph.of_one(image)
        assert max(map_differences(*pair)) < 1e-3
        assert min(feature_cosines(*pair)) > 1 - 1e-5


def test_pixels_go_into_a_file_that_takes_pixels(network: nn.Module, tmp_path: Path) -> None:
    pixels = torch.zeros((4, SIDE, SIDE, 3), dtype=torch.uint8)
    path = export(FromPixels(network), tmp_path / "given.onnx", pixels)
    wrapped = Wrapped(path, "probabilities", row(pb.BGR))
    assert (wrapped.given.layout, wrapped.given.batch) == ("NHWC", 4)
    with torch.no_grad():
        planes_of = torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255
        reference = network(planes_of).softmax(1).numpy()
    assert np.abs(wrapped.graph.answer(PIXELS) - reference).max() < 1e-5
    assert np.abs(wrapped.file.answer(PIXELS) - reference).max() < 1e-5


def test_sigmoid_is_added_to_logits_where_each_class_is_for_itself(
    network: nn.Module, tmp_path: Path
) -> None:
    path = export(network, tmp_path / "given.onnx", planes(2), **ANY_BATCH)
    given = read_classifier(read_onnx_file(path))
    graph = tmp_path / "graph.onnx"
    graph.write_bytes(wrap(given, row(), "logits", "sigmoid").SerializeToString())
    values = ((PIXELS / 255 - np.array(MEAN)) / np.array(STD)).astype(np.float32)
    with torch.no_grad():
        logits = network(torch.from_numpy(values.transpose(0, 3, 1, 2).copy()))
    reference = logits.sigmoid().numpy()
    assert np.abs(onnx_answer(graph)(PIXELS) - reference).max() < 1e-5
    answer = given_runtime(given, row(), "logits", "sigmoid").answer(PIXELS)
    assert np.abs(answer - reference).max() < 1e-5


def test_a_file_of_one_image_at_once_takes_one(network: nn.Module, tmp_path: Path) -> None:
    wrapped = Wrapped(export(network, tmp_path / "given.onnx", planes(1)), "logits", row())
    reference = expected(network, slice(None))
    assert np.abs(wrapped.graph.answer(PIXELS[:1]) - reference[:1]).max() < 1e-5
    with pytest.raises(Exception, match="Reshape"):
        wrapped.graph.answer(PIXELS[:2])


def test_more_images_than_a_file_takes_are_an_error_and_no_answer(
    network: nn.Module, tmp_path: Path
) -> None:
    wrapped = Wrapped(export(network, tmp_path / "given.onnx", planes(2)), "logits", row())
    with pytest.raises(Exception, match="filling"):
        wrapped.graph.answer(PIXELS)


def test_its_weights_are_untouched_and_paths_of_the_exporting_machine_are_gone(
    network: nn.Module, tmp_path: Path
) -> None:
    path = export(network, tmp_path / "given.onnx", planes(2), **ANY_BATCH)
    given = onnx.load(path)
    given.graph.node[0].doc_string = "/home/somebody/train.py"
    onnx.save(given, path)
    model = Wrapped(path, "logits", row()).model
    weights = {tensor.name: tensor.raw_data for tensor in model.graph.initializer}
    for tensor in given.graph.initializer:
        assert weights[f"adopted/{tensor.name}"] == tensor.raw_data
    assert b"/home/somebody" not in model.SerializeToString()
    assert (model.producer_name, model.producer_version) == ("pytorch", given.producer_version)


def test_a_file_that_uses_the_names_of_the_contract(network: nn.Module, tmp_path: Path) -> None:
    axes = {"dynamic_axes": {"image": {0: "batch"}}}
    names = {"input_names": ["image"], "output_names": ["probabilities"]}
    path = export(network, tmp_path / "given.onnx", planes(2), **axes, **names)
    wrapped = Wrapped(path, "logits", row())
    assert np.abs(wrapped.graph.answer(PIXELS) - expected(network, slice(None))).max() < 1e-5


# As VGG, whose last layer sees places; and a pooling that leaves out the border.
LOCAL = {
    "places": (nn.Conv2d(3, 4, 3, stride=4), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64, CLASSES)),
    "corner": (nn.Conv2d(3, 4, 8, stride=12), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, CLASSES)),
}


@pytest.mark.parametrize("kind", LOCAL)
def test_an_end_without_global_average_pooling_has_no_heatmaps(kind: str, tmp_path: Path) -> None:
    path = export(nn.Sequential(*LOCAL[kind]), tmp_path / "given.onnx", planes(2), **ANY_BATCH)
    wrapped = Wrapped(path, "logits", row())
    outputs = [output.name for output in wrapped.model.graph.output]
    assert outputs == ["probabilities", "batch_size"]
    assert np.abs(wrapped.graph.answer(PIXELS) - wrapped.file.answer(PIXELS)).max() < 1e-5


def test_the_graph_takes_no_weights_as_inputs(network: nn.Module, tmp_path: Path) -> None:
    """Files of IR version 3 list them among the inputs."""
    path = export(
        network, tmp_path / "given.onnx", planes(2), keep_initializers_as_inputs=True, **ANY_BATCH
    )
    wrapped = Wrapped(path, "logits", replace(row(), mean=MEAN))
    session = onnxruntime.InferenceSession(wrapped.path, providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == ["image"]
    assert onnx_answer(wrapped.path)(PIXELS).shape == (3, CLASSES)
