"""Which outputs of a version's graph a request needs, and whether the version has them."""

from __future__ import annotations

from collections.abc import Sequence

from convoy.v1 import classifier_pb2 as pb
from server.errors import MalformedRequest

# float32 N×5×h×w, and int32 N×5, the classes that they are of; float32 N×F, and N×1.
HEATMAPS, HEATMAP_CLASSES, FEATURES, UNFAMILIAR = (
    "heatmaps",
    "heatmap_classes",
    "features",
    "unfamiliar",
)
LAYER_PREFIX = "layer_"  # float32 N×C×H×W


def check_available(include: Sequence[pb.Evidence], facts: pb.Model, folder: str) -> None:
    """
    Raises:
        MalformedRequest: the version, in that folder, has not all that is to be included.
    """
    available = {pb.INPUT, *facts.evidence.include}
    if missing := [pb.Evidence.Name(kind) for kind in include if kind not in available]:
        has = ", ".join(map(pb.Evidence.Name, sorted(available)))
        raise MalformedRequest(
            f"{folder} has no {missing[0]}; it has {has}{_remedy(missing[0], facts)}",
            field="include",
        )


def _remedy(missing: str, facts: pb.Model) -> str:
    if facts.evidence.include:
        return ""  # no build of this network has it
    command = facts.manifest.build_command or "python export/build.py"
    return f". It was built before there was more: build it again, with {command}"


def needed_outputs(include: Sequence[pb.Evidence], evidence: pb.ModelEvidence) -> list[str]:
    """Names of the graph's outputs beside probabilities."""
    names = []
    if pb.HEATMAP in include and evidence.heatmap_method == pb.CLASS_ACTIVATION_MAP:
        names += [HEATMAPS, HEATMAP_CLASSES]
    if pb.FEATURES in include:
        names.append(FEATURES)
    if pb.LAYERS in include:
        names += [f"{LAYER_PREFIX}{layer.name}" for layer in evidence.layers]
    if evidence.unfamiliar:
        names.append(UNFAMILIAR)
    return names


def needs_occlusion(include: Sequence[pb.Evidence], evidence: pb.ModelEvidence) -> bool:
    return pb.HEATMAP in include and evidence.heatmap_method == pb.OCCLUSION
