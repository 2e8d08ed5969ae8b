from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from torch import nn

from export.catalog import Network, find
from export.checkpoints.load import Loaded
from export.conversion.to_onnx import Precision, ServedNetwork, to_onnx
from export.errors import OnnxError

ROOT = Path(__file__).parents[3]


def export(network: Network, loaded: Loaded, path: Path, precision: Precision = "fp32") -> None:
    servable = ServedNetwork(loaded.network, network.mean, network.std, precision)
    to_onnx(servable, network.size, len(network.labels()), path)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("batch", [1, 3])
def test_graph_takes_pixels_and_answers_probabilities(
    batch: int, precision: Precision, resnet18_graphs: dict[Precision, Path]
) -> None:
    session = onnxruntime.InferenceSession(
        resnet18_graphs[precision], providers=["CPUExecutionProvider"]
    )
    images = np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), dtype=np.uint8)
    probabilities, batch_size = session.run(["probabilities", "batch_size"], {"image": images})
    assert (probabilities.dtype, probabilities.shape) == (np.float32, (batch, 1000))
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (batch_size.dtype, batch_size.tolist()) == (np.int32, [[batch]] * batch)


def test_half_precision_halves_the_weights(resnet18_graphs: dict[Precision, Path]) -> None:
    half = onnx.load(resnet18_graphs["fp16"])
    weights = [tensor for tensor in half.graph.initializer if len(tensor.dims) == 4]
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.FLOAT16}
    assert resnet18_graphs["fp16"].stat().st_size < 0.51 * resnet18_graphs["fp32"].stat().st_size


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_graph_suits_tensorrt(precision: Precision, resnet18_graphs: dict[Precision, Path]) -> None:
    """Cast before transpose, softmax in fp32, pooling by a reduction and not by strides."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(resnet18_graphs[precision])).graph
    operators = [node.op_type for node in graph.node]
    assert operators.index("Cast") < operators.index("Transpose")
    assert "ReduceMean" in operators and "Gather" not in operators
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    (softmax,) = (node for node in graph.node if node.op_type == "Softmax")
    assert types[softmax.input[0]] == onnx.TensorProto.FLOAT


def test_graph_tells_nothing_of_the_machine(lenet5_graph: Path) -> None:
    model = onnx.load(lenet5_graph)
    parts: list[Any] = [*model.graph.node, *model.graph.value_info, *model.graph.initializer]
    assert not any(item.metadata_props or item.doc_string for item in [model, model.graph, *parts])
    for trace in (str(ROOT), "site-packages", "lenet.py", "+cpu"):
        assert trace.encode() not in lenet5_graph.read_bytes()


def test_same_network_gives_the_same_bytes(
    random_lenet5: Loaded, lenet5_graph: Path, tmp_path: Path
) -> None:
    export(find("lenet5"), random_lenet5, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == lenet5_graph.read_bytes()


def test_export_leaves_the_network_and_the_terminal_alone(
    random_lenet5: Loaded, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    export(find("lenet5"), random_lenet5, tmp_path / "half.onnx", "fp16")
    assert {tensor.dtype.itemsize for tensor in random_lenet5.network.parameters()} == {4}
    assert capfd.readouterr() == ("", "")


def test_labels_that_do_not_fit_the_network_are_refused(tmp_path: Path) -> None:
    lenet5, flat = find("lenet5"), nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 10))
    servable = ServedNetwork(flat, lenet5.mean, lenet5.std, "fp32")
    with pytest.raises(OnnxError, match="labels that do not match"):
        to_onnx(servable, lenet5.size, 11, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
