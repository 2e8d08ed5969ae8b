import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from export.catalog import find
from export.checkpoints.load import load
from export.conversion.to_int8 import Target, to_int8
from export.conversion.to_onnx import ServedNetwork, to_onnx
from export.errors import OnnxError
from export.samples.digits import clean, data_set, random_fifth
from export.samples.images import Pixels, samples
from tests.export.recorder import Recorder

ROOT = Path(__file__).parents[3]
TARGETS: tuple[Target, ...] = get_args(Target)
NETWORKS = {"lenet5": "digits", "resnet20_digits": "digits", "nin_cifar10": "random"}
BOTH = pytest.mark.parametrize("target", TARGETS)
EACH = pytest.mark.parametrize("name", NETWORKS)


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("fp32")
    for name, weights in NETWORKS.items():
        network = find(name)
        servable = ServedNetwork(load(network, weights).network, network.mean, network.std, "fp32")
        to_onnx(servable, network.size, len(network.labels()), folder / name)
    return {name: folder / name for name in NETWORKS}


def calibration(name: str) -> Pixels:
    """64 images that are not those of the tests: digits of the training part, crops of photos."""
    if name == "nin_cifar10":
        return samples(find(name), 64, seed=1).pixels
    return clean(random_fifth().train[:64])


def images(name: str) -> Pixels:
    return samples(find(name), 24, seed=2).pixels


@pytest.fixture(scope="module")
def int8(
    fp32: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, Target], Path]:
    folder = tmp_path_factory.mktemp("int8")
    paths = {(name, target): folder / f"{name}-{target}" for name in NETWORKS for target in TARGETS}
    for (name, target), path in paths.items():
        to_int8(fp32[name], path, calibration(name), target)
    return paths


def answer(
    path: Path, pixels: Pixels, batch: int = 24, *, fused: bool = True
) -> npt.NDArray[np.float32]:
    """Of ONNX Runtime: in integers where it can, or each Q and DQ by itself."""
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if fused else levels.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found = []
    for part in np.split(pixels, range(batch, len(pixels), batch)):
        probabilities, batch_size = session.run(["probabilities", "batch_size"], {"image": part})
        assert probabilities.dtype == np.float32
        assert (batch_size.dtype, batch_size.tolist()) == (np.int32, [[len(part)]] * len(part))
        found.append(probabilities)
    return np.concatenate(found)


# -------------------------------------------------------------------------------------- the graph


class Graph:
    """What the tests ask of a quantised graph."""

    def __init__(self, path: Path) -> None:
        self.model = onnx.load(path)
        self.constants = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self.made_by = {name: node for node in self.model.graph.node for name in node.output}

    def nodes(self, *operators: str) -> Iterator[onnx.NodeProto]:
        return (node for node in self.model.graph.node if node.op_type in operators)

    def operator_before(self, tensor: str) -> str:
        return self.made_by[tensor].op_type if tensor in self.made_by else ""

    def layer_before(self, tensor: str) -> str:
        """The operator that made it, whether it was quantised on the way or not."""
        while (operator := self.operator_before(tensor)) in ("QuantizeLinear", "DequantizeLinear"):
            tensor = self.made_by[tensor].input[0]
        return operator

    def biases(self) -> list[str]:
        """Of layers; the exporter leaves out those that are 0, as nearly all random ones are."""
        names = [tensor for node in self.nodes("Conv", "Gemm") for tensor in node.input[2:]]
        assert names
        return names

    def zero_points(self) -> list[onnx.TensorProto]:
        """Of activations."""
        return [self.constants[node.input[2]] for node in self.nodes("QuantizeLinear")]


@EACH
@BOTH
def test_inputs_and_outputs_are_those_of_fp32(
    name: str, target: Target, fp32: dict[str, Path], int8: dict[tuple[str, Target], Path]
) -> None:
    before, after = onnx.load(fp32[name]).graph, onnx.load(int8[name, target]).graph
    assert list(after.input) == list(before.input)
    assert list(after.output) == list(before.output)
    assert before.input[0].type.tensor_type.elem_type == TensorProto.UINT8


@EACH
@BOTH
def test_each_layer_with_weights_takes_int8_of_both_sides_a_scale_a_channel(
    name: str, target: Target, int8: dict[tuple[str, Target], Path]
) -> None:
    graph = Graph(int8[name, target])
    layers = list(graph.nodes("Conv", "Gemm"))
    assert len(layers) >= 4
    for layer in layers:
        assert graph.operator_before(layer.input[0]) == "DequantizeLinear"
        values, scale, zero_point = (
            graph.constants[tensor] for tensor in graph.made_by[layer.input[1]].input
        )
        assert values.data_type == zero_point.data_type == TensorProto.INT8
        assert list(scale.dims) == [values.dims[0]]  # of output channels
        assert not numpy_helper.to_array(zero_point).any()


@EACH
def test_recipe_for_cpus_has_unsigned_activations_and_int32_bias(
    name: str, int8: dict[tuple[str, Target], Path]
) -> None:
    graph = Graph(int8[name, "cpu"])
    zero_points = graph.zero_points()
    assert {tensor.data_type for tensor in zero_points} == {TensorProto.UINT8}
    for bias in graph.biases():
        assert graph.constants[graph.made_by[bias].input[0]].data_type == TensorProto.INT32
    # The input of the network is negative too, what comes out of a ReLU is not.
    assert numpy_helper.to_array(zero_points[0]) > 0
    # A ReLU after a convolution has vanished into its zero point; those of shortcuts are left.
    assert "Conv" not in [graph.layer_before(relu.input[0]) for relu in graph.nodes("Relu")]


@EACH
def test_recipe_for_cpus_never_overflows_16_bits(
    name: str, int8: dict[tuple[str, Target], Path]
) -> None:
    """CPUs without VNNI add two products of an activation and a weight in 16 bits."""
    graph = Graph(int8[name, "cpu"])
    for layer in graph.nodes("Conv", "Gemm"):
        weights = numpy_helper.to_array(graph.constants[graph.made_by[layer.input[1]].input[0]])
        largest = int(np.abs(weights.astype(int)).max())
        assert 2 * 255 * largest < 2**15
        assert largest > 60  # and the range is used


@EACH
def test_recipe_for_tensorrt_is_symmetric_without_int32_bias(
    name: str, int8: dict[tuple[str, Target], Path]
) -> None:
    graph = Graph(int8[name, "tensorrt"])
    for zero_point in graph.zero_points():
        assert zero_point.data_type == TensorProto.INT8
        assert not numpy_helper.to_array(zero_point)
    for bias in graph.biases():
        assert graph.constants[bias].data_type == TensorProto.FLOAT
    assert not [t.name for t in graph.constants.values() if t.data_type == TensorProto.INT32]
    # Nothing between a layer and the ReLU that it is fused with.
    quantised = {graph.operator_before(node.input[0]) for node in graph.nodes("QuantizeLinear")}
    assert not quantised & {"Conv", "Gemm"}


@EACH
@BOTH
def test_what_is_before_the_first_layer_and_the_softmax_stay_in_fp32(
    name: str, target: Target, int8: dict[tuple[str, Target], Path]
) -> None:
    graph = Graph(int8[name, target])
    for node in graph.nodes("Cast", "Div", "Sub", "Transpose", "Softmax"):
        assert "DequantizeLinear" not in map(graph.operator_before, node.input)
        assert node.domain == ""
    (transpose,) = graph.nodes("Transpose")
    assert graph.operator_before(transpose.input[0]) == "Div"
    assert graph.operator_before("probabilities") == "Softmax"


@BOTH
def test_graph_tells_nothing_of_the_machine_and_of_the_quantiser(
    target: Target, fp32: dict[str, Path], int8: dict[tuple[str, Target], Path]
) -> None:
    path = int8["lenet5", target]
    before, model = onnx.load(fp32["lenet5"]), onnx.load(path)
    parts: list[Any] = [*model.graph.node, *model.graph.value_info, *model.graph.initializer]
    assert not any(item.metadata_props or item.doc_string for item in [model, model.graph, *parts])
    assert (model.producer_name, model.producer_version, model.opset_import) == (
        before.producer_name,
        before.producer_version,
        before.opset_import,
    )
    assert b"/tmp" not in path.read_bytes() and str(ROOT).encode() not in path.read_bytes()


AGAIN = """
import sys
from pathlib import Path
import numpy as np
from export.conversion.to_int8 import to_int8
fp32_path, path, images, target = sys.argv[1:]
to_int8(Path(fp32_path), Path(path), np.load(images), target)
"""


def test_same_network_and_images_give_the_same_bytes_in_any_process(
    fp32: dict[str, Path], int8: dict[tuple[str, Target], Path], tmp_path: Path
) -> None:
    np.save(tmp_path / "images.npy", calibration("resnet20_digits"))
    again = tmp_path / "again.onnx"
    arguments = [str(fp32["resnet20_digits"]), str(again), str(tmp_path / "images.npy"), "cpu"]
    # Another order of sets.
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", AGAIN, *arguments]
    subprocess.run(command, check=True, cwd=ROOT, env=environment)
    assert again.read_bytes() == int8["resnet20_digits", "cpu"].read_bytes()


# ------------------------------------------------------------------------------------ the answers


@BOTH
@pytest.mark.parametrize("name", ["lenet5", "resnet20_digits"])
def test_trained_networks_read_held_out_digits_as_in_fp32(
    name: str, target: Target, fp32: dict[str, Path], int8: dict[tuple[str, Target], Path]
) -> None:
    rows = random_fifth().held_out
    digits, labels = clean(rows), data_set()[1][rows]
    expected, found = answer(fp32[name], digits), answer(int8[name, target], digits)
    right, expected_right = (scores.argmax(axis=1) == labels for scores in (found, expected))
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.99
    assert right.mean() >= expected_right.mean() - 0.01
    assert np.abs(found - expected).max() < 0.1
    assert np.abs(found - expected).mean() > 0  # it is another network after all


@EACH
@BOTH
def test_images_are_answered_alike_in_any_batch(
    name: str, target: Target, int8: dict[tuple[str, Target], Path]
) -> None:
    path, pixels = int8[name, target], images(name)
    one_by_one = answer(path, pixels, batch=1)
    for batch in (2, 3, 8):
        # In another batch fp32 rounds otherwise, which can move an integer by one.
        assert np.abs(answer(path, pixels, batch) - one_by_one).max() < 0.02


@EACH
def test_integer_arithmetic_answers_what_the_graph_says(
    name: str, int8: dict[tuple[str, Target], Path]
) -> None:
    """The pool of nin_cifar10 hangs over the edge, which an integer pool counted as padding."""
    path, pixels = int8[name, "cpu"], images(name)
    assert np.abs(answer(path, pixels) - answer(path, pixels, fused=False)).max() < 0.05


# -------------------------------------------------------------------------------------- the stage


@pytest.mark.parametrize("count", [8, 11])
def test_progress_begins_at_none_and_reaches_all(
    count: int, fp32: dict[str, Path], tmp_path: Path
) -> None:
    recorder = Recorder()
    to_int8(
        fp32["lenet5"],
        tmp_path / "model.onnx",
        calibration("lenet5")[:count],
        "cpu",
        recorder,
    )
    assert recorder.reports == [
        ("calibration", done, count) for done in (0, *range(4, count, 4), count)
    ]


def test_ranges_are_of_all_images_and_not_of_the_last_batch(
    fp32: dict[str, Path], tmp_path: Path
) -> None:
    paper = np.zeros((8, 32, 32, 1), dtype=np.uint8)
    ranges = {}
    for name, pixels in {
        "both": np.concatenate([calibration("lenet5")[:8], paper]),
        "digits": calibration("lenet5")[:8],
    }.items():
        to_int8(fp32["lenet5"], tmp_path / name, pixels, "cpu")
        graph = Graph(tmp_path / name)
        ranges[name] = [
            float(numpy_helper.to_array(graph.constants[node.input[1]]))
            for node in graph.nodes("QuantizeLinear")
        ]
    assert all(both >= digits for both, digits in zip(*ranges.values(), strict=True))


def test_terminal_and_logging_are_left_alone(
    fp32: dict[str, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    to_int8(fp32["lenet5"], tmp_path / "model.onnx", calibration("lenet5")[:8], "cpu")
    assert (root.level, root.handlers) == before
    assert (capfd.readouterr(), caplog.records) == (("", ""), [])


def test_what_cannot_be_quantised_is_named_and_nothing_is_written(
    fp32: dict[str, Path], tmp_path: Path
) -> None:
    small = np.zeros((8, 16, 16, 1), dtype=np.uint8)  # lenet5 takes 32×32
    with pytest.raises(OnnxError, match=r"lenet5 cannot be quantised for tensorrt \(.*\): build"):
        to_int8(fp32["lenet5"], tmp_path / "model.onnx", small, "tensorrt")
    assert list(tmp_path.iterdir()) == []
