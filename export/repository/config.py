"""config.pbtxt: what Triton must know about a version, and all other facts in one parameter.

parameters["convoy.v1.Model"]    the message, as JSON
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format, text_format

from convoy.v1 import classifier_pb2 as pb
from export.catalog import (
    FEATURES,
    HEATMAP_CLASSES,
    HEATMAPS,
    LAYER_PREFIX,
    MAX_HEATMAPS,
    UNFAMILIAR,
)
from export.errors import RepositoryError
from export.repository.layout import CONFIG_FILE, LABELS_FILE

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelOutput

FACTS_KEY = "convoy.v1.Model"
BACKENDS = {"onnx": "onnxruntime", "plan": "tensorrt"}  # Triton's, by the manifest's format


def facts_json(model: pb.Model) -> dict[str, Any]:
    """The facts as config.pbtxt has them, with the manifest's digest filled in."""
    facts: dict[str, Any] = json_format.MessageToDict(model, preserving_proto_field_name=True)
    facts["manifest_digest"] = manifest_digest(facts["manifest"])
    return facts


def manifest_digest(manifest: dict[str, Any]) -> str:
    """sha256 of the manifest's JSON: sorted keys, no spaces, no escaped characters, UTF-8."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def labels_text(labels: Sequence[pb.Label]) -> str:
    return "".join(f"{label.name}\n" for label in labels)


def to_triton_config(model: pb.Model, max_batch_size: int) -> ModelConfig:
    """Without a name, so that the folder's name counts; without queue policies, which stall
    Triton's batcher; without preferred batch sizes, which give surprising batches."""
    from tritonclient.grpc import model_config_pb2 as triton

    image = model.input
    facts = json.dumps(facts_json(model), ensure_ascii=False, sort_keys=True)  # maps have no order
    return triton.ModelConfig(
        backend=BACKENDS[model.manifest.format or "onnx"],
        max_batch_size=max_batch_size,
        input=[
            triton.ModelInput(
                name="image",
                data_type=triton.TYPE_UINT8,
                dims=[image.height, image.width, image.channels],
            )
        ],
        output=[
            triton.ModelOutput(
                name="probabilities",
                data_type=triton.TYPE_FP32,
                dims=[len(model.labels)],
                label_filename=LABELS_FILE,
            ),
            triton.ModelOutput(name="batch_size", data_type=triton.TYPE_INT32, dims=[1]),
            *evidence_outputs(model),
        ],
        instance_group=[triton.ModelInstanceGroup(count=1)],
        dynamic_batching=triton.ModelDynamicBatching(),
        parameters={FACTS_KEY: triton.ModelParameter(string_value=facts)},
    )


def evidence_outputs(model: pb.Model) -> list[ModelOutput]:
    """The graph's outputs beside probabilities (export/conversion/evidence.py)."""
    from tritonclient.grpc import model_config_pb2 as triton

    evidence = model.evidence
    dims: dict[str, list[int]] = {}
    if evidence.heatmap_method == pb.CLASS_ACTIVATION_MAP:
        count = min(MAX_HEATMAPS, len(model.labels))
        dims[HEATMAPS] = [count, evidence.heatmap_height, evidence.heatmap_width]
        dims[HEATMAP_CLASSES] = [count]
    if evidence.features:
        dims[FEATURES] = [evidence.features]
    for layer in evidence.layers:
        dims[f"{LAYER_PREFIX}{layer.name}"] = [layer.maps, layer.height, layer.width]
    if evidence.unfamiliar:
        dims[UNFAMILIAR] = [1]
    types = {HEATMAP_CLASSES: triton.TYPE_INT32}
    return [
        triton.ModelOutput(name=name, data_type=types.get(name, triton.TYPE_FP32), dims=shape)
        for name, shape in dims.items()
    ]


def write_config(folder: Path, model: pb.Model, max_batch_size: int) -> None:
    """Writes config.pbtxt and labels.txt into the version's folder."""
    text = text_format.MessageToString(to_triton_config(model, max_batch_size), as_utf8=True)
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
    (folder / LABELS_FILE).write_text(labels_text(model.labels), encoding="utf-8")


def read_config(folder: Path) -> ModelConfig:
    """
    Raises:
        RepositoryError: config.pbtxt is missing or broken.
    """
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    path = folder / CONFIG_FILE
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise RepositoryError(f"{path} cannot be read: {error}.") from error


def max_batch_size(folder: Path) -> int:
    """
    Raises:
        RepositoryError: config.pbtxt is missing or broken.
    """
    return int(read_config(folder).max_batch_size)


def known_weights(folder: Path | None) -> dict[str, str]:
    """The sha256 of the file of weights that a version was made of, by its name."""
    facts = read_facts(folder) if folder else None
    weights = facts.manifest.weights if facts else pb.Weights()
    return {weights.file: weights.sha256} if weights.file else {}


def read_facts(folder: Path) -> pb.Model | None:
    """The facts that a build wrote; None if they cannot be read."""
    try:
        facts = read_config(folder).parameters[FACTS_KEY].string_value
        return json_format.Parse(facts, pb.Model(), ignore_unknown_fields=True)
    except (RepositoryError, json_format.ParseError):
        return None
