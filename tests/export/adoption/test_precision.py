"""A file in fp16 and int8: what becomes of its weights, and that it answers as in fp32."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from export.adoption.classifier import Classifier, read_classifier
from export.adoption.folding import fold
from export.adoption.onnx_file import read_onnx_file
from export.adoption.precision import decide_precision, in_fp16, precision_of
from export.adoption.wrapper import Scores, opset, wrap
from export.catalog import FEATURES, HEATMAP_CLASSES, HEATMAPS, INPUT, PROBABILITIES
from export.conversion.to_int8 import to_int8
from export.errors import AdoptionError, OnnxError
from export.samples.images import CALIBRATION_SEED, PROOF_SEED, Pixels, Probabilities, crops
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
from tests.export.adoption.test_wrapper import row


class Patches(nn.Module):
    """Attention between 16 patches, so products of activations beside those with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, stride=8)
        self.query, self.value = nn.Linear(16, 16), nn.Linear(16, 16)
        self.last = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)  # N×16×16
        attention = (self.query(tokens) @ tokens.transpose(1, 2)).softmax(2)
        logits: Tensor = self.last((attention @ self.value(tokens)).mean(1))
        return logits


def with_clip_and_normalisation() -> nn.Module:
    """The classifier with ReLU6, and batch normalisation beside its convolutions."""
    layers = []
    for layer in copy.deepcopy(classifier()).children():
        layers.append(nn.ReLU6() if isinstance(layer, nn.ReLU) else layer)
        if isinstance(layer, nn.Conv2d):
            normalisation = nn.BatchNorm2d(layer.out_channels)
            normalisation.running_var.fill_(2)  # type: ignore[union-attr]
            layers.append(normalisation)
    return nn.Sequential(*layers).eval()


def files(folder: Path) -> dict[str, Path]:
    torch.manual_seed(0)
    network, path = classifier(), folder / "network.onnx"
    kept = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    pixels = torch.zeros((2, SIDE, SIDE, 3), dtype=torch.uint8)
    modules: dict[str, tuple[nn.Module, Tensor, dict[str, object]]] = {
        "plain": (network, planes(2), {}),
        "unfolded": (with_clip_and_normalisation(), planes(2), kept),
        "channels last": (ChannelsLast(network), planes(2), {}),
        "pixels": (FromPixels(network), pixels, {}),
        "patches": (Patches().eval(), planes(2), {}),
        "opset 11": (network, planes(2), {"opset_version": 11}),
    }
    return {
        name: export(module, path.with_name(f"{name}.onnx"), example, **ANY_BATCH, **options)
        for name, (module, example, options) in modules.items()
    }


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Classifier]:
    paths = files(tmp_path_factory.mktemp("given"))
    return {name: read_classifier(read_onnx_file(path)) for name, path in paths.items()}


EACH = pytest.mark.parametrize(
    "name", ["plain", "unfolded", "channels last", "pixels", "patches", "opset 11"]
)


def scores_of(name: str) -> Scores:
    return "probabilities" if name == "pixels" else "logits"


def wrapped(given: Classifier, name: str, path: Path) -> Path:
    path.write_bytes(wrap(given, row(), scores_of(name)).SerializeToString())
    return path


def answers(path: Path, outputs: tuple[str, ...] = (PROBABILITIES,)) -> list[Probabilities]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images: Pixels = crops(24, PROOF_SEED, SIDE).pixels
    found: list[Probabilities] = session.run(list(outputs), {INPUT: images})
    return found


def difference(one: Path, other: Path) -> float:
    return float(np.abs(answers(one)[0] - answers(other)[0]).max())


@EACH
def test_fp16_answers_as_fp32_does_with_weights_of_half_the_size(
    name: str, given: dict[str, Classifier], tmp_path: Path
) -> None:
    fp32 = wrapped(given[name], name, tmp_path / "fp32.onnx")
    fp16 = wrapped(in_fp16(given[name]), name, tmp_path / "fp16.onnx")
    assert precision_of(onnx.load(fp16)) == "fp16"
    assert 0 < difference(fp32, fp16) < 0.01
    graphs = [onnx.load(path).graph for path in (fp32, fp16)]
    assert list(graphs[0].input) == list(graphs[1].input)
    assert list(graphs[0].output) == list(graphs[1].output), "evidence included"


def test_the_file_itself_stays_as_it_is(given: dict[str, Classifier]) -> None:
    before = given["plain"].file.model.SerializeToString()
    in_fp16(given["plain"])
    assert given["plain"].file.model.SerializeToString() == before


def quantised(given: Classifier, name: str, folder: Path) -> tuple[Path, Path]:
    """In fp32 and int8."""
    fp32, folded, int8 = (folder / f"{kind}.onnx" for kind in ("fp32", "folded", "int8"))
    wrapped(given, name, fp32)
    fold(fp32, folded, name)
    to_int8(folded, int8, crops(32, CALIBRATION_SEED, SIDE).pixels, "cpu")
    return fp32, int8


@EACH
def test_int8_answers_as_fp32_does_with_every_layer_in_integers(
    name: str, given: dict[str, Classifier], tmp_path: Path
) -> None:
    fp32, int8 = quantised(given[name], name, tmp_path)
    assert 0 < difference(fp32, int8) < 0.2, "of a random network, whose answers are far apart"
    model = onnx.load(int8)
    assert opset(model) >= 13 and {entry.domain for entry in model.opset_import} == {""}
    made_by = {output: node for node in model.graph.node for output in node.output}
    weights = {tensor.name for tensor in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    of_weights = [
        node for node in layers if made_by[node.input[1]].op_type == "DequantizeLinear"
        and made_by[node.input[1]].input[0] in weights
    ]  # fmt: skip
    assert len(of_weights) == (4 if name == "patches" else 3)
    left = Counter(node.op_type for node in layers if node not in of_weights)
    assert left == ({"MatMul": 2} if name == "patches" else {"MatMul": 1})  # attention; heat-maps
    assert not {"BatchNormalization", "Relu", "Clip"} & {node.op_type for node in model.graph.node}


def test_heatmaps_in_int8_read_weights_of_their_own(
    given: dict[str, Classifier], tmp_path: Path
) -> None:
    for name in ("plain", "channels last"):
        fp32, int8 = quantised(given[name], name, tmp_path)
        (gather,) = (
            node for node in onnx.load(int8).graph.node
            if node.op_type == "Gather" and node.input[0].endswith("_of_heatmaps")
        )  # fmt: skip
        kinds = {tensor.name: tensor.data_type for tensor in onnx.load(int8).graph.initializer}
        assert kinds[gather.input[0]] == TensorProto.FLOAT16
        (best, maps, features), (best8, maps8, features8) = (
            answers(path, (HEATMAP_CLASSES, HEATMAPS, FEATURES)) for path in (fp32, int8)
        )
        alike = best[:, 0] == best8[:, 0]
        assert alike.mean() > 0.8
        for before, after in ((maps[alike, 0], maps8[alike, 0]), (features, features8)):
            assert np.abs(before - after).max() < 0.1 * np.abs(before).max()


# ------------------------------------------------------------------------------ what is refused


def test_what_is_no_float32_is_not_converted(given: dict[str, Classifier]) -> None:
    half = in_fp16(given["plain"])
    assert decide_precision(half, "fp32") == "fp16"
    assert decide_precision(given["plain"], "int8") == "int8"
    for asked in ("fp16", "int8"):
        with pytest.raises(AdoptionError, match=f"is in float16, and --{asked} is made of float32"):
            decide_precision(half, asked)


def test_doubles_are_not_converted(given: dict[str, Classifier]) -> None:
    model = onnx.ModelProto.FromString(given["plain"].file.model.SerializeToString())
    for tensor in model.graph.initializer:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name)
        )
    file = replace(given["plain"].file, model=model)
    with pytest.raises(OnnxError, match="has no weights in float32 that --fp16 could convert"):
        in_fp16(replace(given["plain"], file=file))
