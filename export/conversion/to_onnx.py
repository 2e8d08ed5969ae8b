"""PyTorch to ONNX, with everything between uint8 pixels and probabilities in the graph.

    image uint8 N×H×W×C → float32 → normalise → N×C×H×W → network → softmax → probabilities N×K
                                                      or sigmoid    and batch_size N×1
                                                                    and evidence.py's outputs

So nobody who serves the graph can normalise wrongly, and requests have a quarter of the bytes. The
cast precedes the transpose because TensorRT's parser accepts no uint8 transpose. `batch_size` is
the number of images in the batch, which no serving runtime returns with an answer.

For fp16 the network is converted before the export, since TensorRT 11 has no builder flag for it.
Normalisation and softmax stay in fp32, inputs and outputs keep their types.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
from torch import Tensor, nn

from export.catalog import BATCH_SIZE, INPUT, PROBABILITIES, Activation
from export.conversion.evidence import EvidenceOutputs, is_evidence
from export.errors import OnnxError

Precision = Literal["fp32", "fp16"]

OPSET = 18


class ServedNetwork(nn.Module):
    """A network as it is served: uint8 pixels in, probabilities out."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        precision: Precision,
        *,
        is_bgr: bool = False,
        with_layers: bool = False,
        activation: Activation = "softmax",
    ) -> None:
        """Mean and std are those of red, green and blue, or of grey; `is_bgr` reverses them."""
        super().__init__()
        self.is_bgr = is_bgr
        self.dtype = {"fp32": torch.float32, "fp16": torch.float16}[precision]
        self.network = copy.deepcopy(network).eval().to(self.dtype)
        self.activation = activation
        self.evidence = EvidenceOutputs(self.network, with_layers=with_layers)
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:  # N×H×W×C, uint8
        x = (image.float() / 255 - self.mean) / self.std
        if self.is_bgr:
            x = x.flip(3)
        # With channels last, global pooling would be traced as a gather by strides. `contiguous`
        # would not change a grey image, whose strides fit both layouts.
        x = x.permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)
        x = x.to(self.dtype)  # N×C×H×W
        logits = self.network(x).float()  # N×K
        count = image.shape[0]
        batch_size = torch.full((count, 1), count, dtype=torch.int32)
        scores = logits.sigmoid() if self.activation == "sigmoid" else logits.softmax(dim=1)
        return scores, batch_size, *self.evidence.tensors(logits)


def to_onnx(servable: ServedNetwork, size: int, classes: int, path: Path) -> None:
    """Writes the graph, for any batch size, to `path`.

    Raises:
        OnnxError: the graph has other inputs or outputs than serving needs.
    """
    shape = (size, size, len(servable.mean))  # H×W×C
    # Two images: torch makes an axis of 1 a constant.
    example = torch.zeros((2, *shape), dtype=torch.uint8)
    with _quiet():
        program = torch.onnx.export(
            servable,
            (example,),
            input_names=[INPUT],
            output_names=[PROBABILITIES, BATCH_SIZE, *servable.evidence.names],
            dynamic_shapes={"image": {0: "batch"}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise OnnxError(
            "torch.onnx.export returned nothing: use the torch that pyproject.toml pins."
        )
    model = program.model_proto
    strip_origin(model)
    check(model, shape, classes)
    path.write_bytes(model.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences torch's exporter, which prints each step and warns of unneeded packages."""
    loggers = [logging.getLogger("torch.onnx"), logging.getLogger("onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def strip_origin(model: onnx.ModelProto) -> None:
    """Removes source files and lines of operators, which are paths of the machine that exported."""
    graph = model.graph
    lists: tuple[Iterable[Any], ...] = (
        (model, graph),
        (*graph.node, *graph.initializer),
        (*graph.input, *graph.output, *graph.value_info),
    )
    for item in chain.from_iterable(lists):
        item.doc_string = ""
        del item.metadata_props[:]
    model.producer_version = torch.__version__.partition("+")[
        0
    ]  # not "+cpu": that is the machine's


def check(model: onnx.ModelProto, shape: tuple[int, int, int], classes: int) -> None:
    """Checks the graph, for inputs of H×W×C and the number of classes.

    Raises:
        OnnxError: it has other inputs or outputs than serving needs.
    """
    onnx.checker.check_model(model, full_check=True)
    expected = {
        INPUT: (onnx.TensorProto.UINT8, ["batch", *shape]),
        PROBABILITIES: (onnx.TensorProto.FLOAT, ["batch", classes]),
        BATCH_SIZE: (onnx.TensorProto.INT32, ["batch", 1]),
    }
    actual = {value.name: _parse_type(value) for value in (*model.graph.input, *model.graph.output)}
    if {name: type_ for name, type_ in actual.items() if not is_evidence(name, *type_)} != expected:
        raise OnnxError(
            f"The exported graph has the inputs and outputs {actual}, serving needs {expected}: "
            "look for a shape that the architecture fixes, and for labels that do not match its "
            "classes."
        )


def _parse_type(value: onnx.ValueInfoProto) -> tuple[int, list[str | int]]:
    tensor = value.type.tensor_type
    return tensor.elem_type, [axis.dim_param or axis.dim_value for axis in tensor.shape.dim]
