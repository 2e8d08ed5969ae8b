"""What a graph puts out beside probabilities: heat-maps, features, the maps of its layers.

    heatmaps float32 N×5×h×w, of the best five classes    heatmap_classes int32 N×5, which they are
    features float32 N×F                                   layer_NAME float32 N×C×H×W
    unfamiliar float32 N×1

A heat-map is a class activation map (Zhou, Khosla, Lapedriza, Oliva, Torralba, "Learning Deep
Features for Discriminative Localization", 2016, section 2): the maps before global average pooling,
summed with the weights that the last layer gives them for the class. Its mean over all positions is
the class's logit, but for the bias. In Network in Network, the maps before the pooling are those of
the classes already.

The maps of five classes cost as much as 0.01 % of a ResNet-50, those of all 1,000 would cost 2.5 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from convoy.v1 import classifier_pb2 as pb
from export.architectures.taps import taps
from export.catalog import (
    FEATURES,
    HEATMAP_CLASSES,
    HEATMAPS,
    LAYER_PREFIX,
    MAX_HEATMAPS,
    OCCLUSION_SIDE,
    UNFAMILIAR,
    is_evidence_name,
)


class EvidenceOutputs:
    """Reads a network on its way, and makes tensors of what it read."""

    def __init__(self, network: nn.Module, *, with_layers: bool) -> None:
        self._network = network
        self._taps = taps(network)
        self._layers = self._taps.layers if with_layers else {}
        self._inputs: dict[str, Tensor] = {}  # by the name of the module that took it
        modules = {self._taps.last_layer, self._taps.average, *self._layers.values()} - {""}
        for name in modules:
            network.get_submodule(name).register_forward_pre_hook(self._read(name))

    @property
    def names(self) -> list[str]:
        """Of what `tensors` returns."""
        return [
            *([HEATMAPS, HEATMAP_CLASSES] if self._taps.average else []),
            *([FEATURES] if self._taps.last_layer else []),
            *(f"{LAYER_PREFIX}{name}" for name in self._layers),
            *([UNFAMILIAR] if hasattr(self._network, UNFAMILIAR) else []),
        ]

    def tensors(self, logits: Tensor) -> list[Tensor]:
        """In float32, after the network's forward pass over N images; logits are N×K."""
        outputs: list[Tensor] = []
        if self._taps.average:
            best = logits.topk(min(MAX_HEATMAPS, logits.shape[1])).indices  # N×5
            outputs += [self._heatmaps(best), best.int()]
        if self._taps.last_layer:
            outputs.append(self._features())
        for module in self._layers.values():
            layer = self._inputs[module].float()
            outputs.append(layer if layer.dim() == 4 else layer[:, :, None, None])
        if score := getattr(self._network, UNFAMILIAR, None):
            outputs.append(score(logits, self._features()).float())
        return outputs

    def _read(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._inputs[name] = inputs[0]

        return hook

    def _heatmaps(self, best: Tensor) -> Tensor:
        """N×5×h×w, of the classes N×5."""
        maps = self._inputs[self._taps.average]  # N×C×h×w
        positions = maps.flatten(2).float()  # N×C×hw
        last = self._network.get_submodule(self._taps.last_layer)
        if isinstance(last, nn.Linear):
            heatmaps = last.weight[best].float() @ positions  # N×5×hw
        else:  # a map per class already
            rows = best.unsqueeze(2).expand(-1, -1, positions.shape[2])
            heatmaps = positions.gather(1, rows)
        return heatmaps.view(heatmaps.shape[0], heatmaps.shape[1], *maps.shape[2:])

    def _features(self) -> Tensor:
        """N×F."""
        features = self._inputs[self._taps.last_layer].float()
        return features.mean((2, 3)) if features.dim() == 4 else features


def is_evidence(name: str, element_type: int, shape: Sequence[str | int]) -> bool:
    """Whether a graph's output is one of those above, for any number of images."""
    if not is_evidence_name(name):
        return False
    batch, *rest = shape
    expected = TensorProto.INT32 if name == HEATMAP_CLASSES else TensorProto.FLOAT
    return element_type == expected and batch == "batch" and all(isinstance(n, int) for n in rest)


def separate_class_weights(model: onnx.ModelProto) -> None:
    """Gives the heat-maps a copy of the last layer's weights, in float16, before these become int8.

    Otherwise each inference would turn all of them back to float32 to gather five rows.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    of_layers = {name for layer in layers for name in layer.input if name in weights}
    for number, node in enumerate(model.graph.node):
        if node.op_type in ("GatherND", "Gather") and node.input[0] in of_layers:
            copy = numpy_helper.to_array(weights[node.input[0]]).astype(np.float16)
            name, rows = f"{node.input[0]}_of_heatmaps", f"{node.output[0]}_float16"
            model.graph.initializer.append(numpy_helper.from_array(copy, name))
            to_float32 = helper.make_node("Cast", [rows], [node.output[0]], to=TensorProto.FLOAT)
            node.input[0], node.output[0] = name, rows
            model.graph.node.insert(number + 1, to_float32)
            return


def evidence_facts(path: Path) -> pb.ModelEvidence:
    """What a version with the graph in this file can add to its answers."""
    model = onnx.load(path)
    shapes = {
        output.name: [axis.dim_value for axis in output.type.tensor_type.shape.dim[1:]]
        for output in model.graph.output
    }
    layers = {
        name.removeprefix(LAYER_PREFIX): shape
        for name, shape in shapes.items()
        if name.startswith(LAYER_PREFIX)
    }
    facts = pb.ModelEvidence(
        include=[pb.INPUT, pb.HEATMAP],
        heatmap_method=pb.OCCLUSION,
        heatmap_passes=1 + OCCLUSION_SIDE**2,
        heatmap_height=OCCLUSION_SIDE,
        heatmap_width=OCCLUSION_SIDE,
        layers=[
            pb.LayerShape(name=name, maps=maps, height=height, width=width)
            for name, (maps, height, width) in layers.items()
        ],
        unfamiliar=UNFAMILIAR in shapes,
    )
    if HEATMAPS in shapes:
        _, facts.heatmap_height, facts.heatmap_width = shapes[HEATMAPS]
        facts.heatmap_method, facts.heatmap_passes = pb.CLASS_ACTIVATION_MAP, 1
    if FEATURES in shapes:
        (facts.features,) = shapes[FEATURES]
        facts.include.append(pb.FEATURES)
    if layers:
        facts.include.append(pb.LAYERS)
    return facts
