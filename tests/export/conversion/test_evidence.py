"""What an exported graph shows of its network beside probabilities."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from convoy.v1 import classifier_pb2 as pb
from export.architectures.resnet import CifarResNet
from export.catalog import Network, find
from export.checkpoints.load import load
from export.conversion.evidence import evidence_facts
from export.conversion.to_int8 import Target, to_int8
from export.conversion.to_onnx import Precision, ServedNetwork, to_onnx
from export.samples.images import samples

Array = npt.NDArray[Any]


def export(
    network: Network, module: nn.Module, path: Path, precision: Precision = "fp32"
) -> dict[str, Array]:
    """The outputs of the exported graph, for three images."""
    servable = ServedNetwork(
        module, network.mean, network.std, precision, with_layers=network.reads_digits
    )
    to_onnx(servable, network.size, len(network.labels()), path)
    return outputs(path, network)


def outputs(path: Path, network: Network) -> dict[str, Array]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    images = samples(network, 3, seed=4).pixels
    return dict(zip(names, session.run(names, {"image": images}), strict=True))


class Exported(NamedTuple):
    """A network, and its graph."""

    row: Network
    module: nn.Module
    path: Path


Exports = Callable[[str, Precision], Exported]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """Exports a network once: trained, but for the ResNet, which has 8 layers."""
    folder = tmp_path_factory.mktemp("graphs")

    @cache
    def exported(name: str, precision: Precision) -> Exported:
        row, path = find(name), folder / f"{name}-{precision}.onnx"
        module = CifarResNet(8) if name == "resnet20_digits" else load(row, "digits").network
        export(row, module, path, precision)
        return Exported(row, module.eval(), path)

    return exported


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["resnet20_digits", "nin_digits", "inception_digits"])
def test_the_mean_of_a_heat_map_is_the_logit_of_its_class(
    name: str, precision: Precision, exported: Exports
) -> None:
    """But for the bias; only differences of logits can be read off probabilities."""
    network, module, path = exported(name, precision)
    got = outputs(path, network)
    classes, probabilities = got["heatmap_classes"], got["probabilities"]
    np.testing.assert_array_equal(classes, np.argsort(-probabilities, axis=1)[:, :5])
    last = module.get_submodule("scores" if name == "nin_digits" else "fc")
    bias = np.zeros(10) if name == "nin_digits" else last.get_parameter("bias").detach().numpy()
    logits = got["heatmaps"].mean(axis=(2, 3)) + bias[classes]
    logarithms = np.log(np.take_along_axis(probabilities, classes, axis=1))
    np.testing.assert_allclose(
        logits - logits[:, :1],
        logarithms - logarithms[:, :1],
        atol=1e-3 if precision == "fp32" else 0.1,
    )


def test_features_are_what_the_last_layer_takes(exported: Exports) -> None:
    network, module, path = exported("resnet20_digits", "fp32")
    got = outputs(path, network)
    with torch.inference_mode():
        logits = module.get_submodule("fc")(torch.from_numpy(got["features"]))
    np.testing.assert_allclose(logits.softmax(1).numpy(), got["probabilities"], atol=1e-5)


def test_layers_of_lenet5_are_those_of_the_paper(exported: Exports) -> None:
    network, _, path = exported("lenet5", "fp32")
    got = outputs(path, network)
    assert {name: output.shape[1:] for name, output in got.items() if "layer" in name} == {
        "layer_C1": (6, 28, 28),
        "layer_S2": (6, 14, 14),
        "layer_C3": (16, 10, 10),
        "layer_S4": (16, 5, 5),
        "layer_C5": (120, 1, 1),
        "layer_F6": (84, 1, 1),
    }
    assert all(np.abs(got[f"layer_{name}"]).max() <= 1.7159 for name in ("C1", "F6"))  # squashed
    np.testing.assert_array_equal(got["layer_F6"][:, :, 0, 0], got["features"])


def test_facts_say_what_the_graph_has(exported: Exports) -> None:
    facts = evidence_facts(exported("lenet5", "fp32").path)
    assert list(facts.include) == [pb.INPUT, pb.HEATMAP, pb.FEATURES, pb.LAYERS]
    assert (facts.heatmap_method, facts.heatmap_passes) == (pb.OCCLUSION, 50)
    assert (facts.features, facts.unfamiliar) == (84, True)
    facts = evidence_facts(exported("nin_digits", "fp32").path)
    assert (facts.heatmap_method, facts.heatmap_passes) == (pb.CLASS_ACTIVATION_MAP, 1)
    assert (facts.heatmap_height, facts.heatmap_width) == (8, 8)
    assert [layer.name for layer in facts.layers] == ["mlpconv1", "mlpconv2", "mlpconv3", "scores"]


def test_a_network_that_scores_unfamiliar_images_has_an_output_for_it(tmp_path: Path) -> None:
    class Doubting(CifarResNet):
        def unfamiliar(self, logits: Tensor, features: Tensor | None = None) -> Tensor:  # N×1
            assert features is not None
            return -logits.logsumexp(1, keepdim=True) + 0 * features.sum(1, keepdim=True)

    network = find("resnet20_digits")
    got = export(network, Doubting(8), tmp_path / "model.onnx")
    assert got["unfamiliar"].shape == (3, 1)
    assert evidence_facts(tmp_path / "model.onnx").unfamiliar


def test_a_network_without_taps_gives_probabilities_alone(tmp_path: Path) -> None:
    network = find("lenet5")
    flat = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 10))
    assert list(export(network, flat, tmp_path / "model.onnx")) == ["probabilities", "batch_size"]
    facts = evidence_facts(tmp_path / "model.onnx")
    assert list(facts.include) == [pb.INPUT, pb.HEATMAP]
    assert facts.heatmap_method == pb.OCCLUSION


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_int8_gathers_the_weights_of_five_classes_alone(
    target: Target, exported: Exports, tmp_path: Path
) -> None:
    """Quantised, all of them would be turned back into floats for each batch."""
    network, _, path = exported("resnet20_digits", "fp32")
    to_int8(path, tmp_path / "int8.onnx", samples(network, 8, seed=1).pixels, target)
    graph = onnx.load(tmp_path / "int8.onnx").graph
    (gather,) = (node for node in graph.node if node.op_type == "GatherND")
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    assert weights[gather.input[0]].dtype == np.float16
    got, in_int8 = outputs(path, network), outputs(tmp_path / "int8.onnx", network)
    assert {name: output.shape for name, output in in_int8.items()} == {
        name: output.shape for name, output in got.items()
    }
