"""A graph as quantisation needs it: with layers whose weights are constants, and a recent opset.

Exporters leave batch normalisation beside its convolution, weights in Constant operators or
computed from others, and a bias in an Add after its product. ONNX Runtime's own folding makes one
layer with constant weights of each.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnxruntime

from export.adoption.onnx_file import all_nodes
from export.adoption.sessions import open_session
from export.adoption.wrapper import with_opset

MIN_OPSET = 13  # from which QuantizeLinear takes a scale per channel


def fold(source: Path, path: Path, name: str) -> None:
    """Writes the graph of `source`, which gives the same answers, to `path`; `name` is for people.

    Raises:
        AdoptionError: its operators are too old, and cannot be replaced by newer ones.
    """
    model = with_opset(onnx.load(source), MIN_OPSET, name)
    with tempfile.TemporaryDirectory(prefix="convoy-fold-") as folder:
        folded = Path(folder, "model.onnx")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
        open_session(model.SerializeToString(), name, options)
        model = onnx.load(folded)
    _import_what_is_used(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _import_what_is_used(model: onnx.ModelProto) -> None:
    """ONNX Runtime imports all the operators that it knows."""
    used = {node.domain for node in all_nodes(model.graph.node)}
    imports = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(imports)
