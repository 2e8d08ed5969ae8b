import pytest

from convoy.v1 import classifier_pb2 as pb
from server.errors import MalformedRequest
from server.evidence.outputs import check_available, needed_outputs, needs_occlusion

BY_MAPS = pb.ModelEvidence(
    include=[pb.INPUT, pb.HEATMAP, pb.FEATURES], heatmap_method=pb.CLASS_ACTIVATION_MAP, features=64
)
BY_OCCLUSION = pb.ModelEvidence(
    include=[pb.INPUT, pb.HEATMAP, pb.LAYERS],
    heatmap_method=pb.OCCLUSION,
    layers=[pb.LayerShape(name="C1"), pb.LayerShape(name="S2")],
    unfamiliar=True,
)


def test_only_what_is_included_is_asked_of_the_graph() -> None:
    assert needed_outputs([], BY_MAPS) == []
    assert needed_outputs([pb.INPUT], BY_MAPS) == []
    assert needed_outputs([pb.HEATMAP, pb.FEATURES], BY_MAPS) == [
        "heatmaps",
        "heatmap_classes",
        "features",
    ]
    assert needed_outputs([pb.LAYERS, pb.HEATMAP], BY_OCCLUSION) == [
        "layer_C1",
        "layer_S2",
        "unfamiliar",
    ]


def test_how_unfamiliar_an_image_is_is_asked_each_time() -> None:
    assert needed_outputs([], BY_OCCLUSION) == ["unfamiliar"]


def test_occlusion_is_for_networks_without_maps() -> None:
    assert needs_occlusion([pb.HEATMAP], BY_OCCLUSION)
    assert not needs_occlusion([pb.HEATMAP], BY_MAPS)
    assert not needs_occlusion([pb.INPUT], BY_OCCLUSION)


def test_what_a_version_lacks_is_refused_with_what_it_has() -> None:
    check_available([pb.INPUT, pb.HEATMAP], pb.Model(evidence=BY_MAPS), "resnet18.v1")
    with pytest.raises(MalformedRequest, match=r"resnet18\.v1 has no LAYERS; it has INPUT"):
        check_available([pb.LAYERS], pb.Model(evidence=BY_MAPS), "resnet18.v1")


def test_a_version_built_before_names_the_command_that_builds_it_again() -> None:
    command = "python export/build.py resnet18 --fp16"
    old = pb.Model(manifest=pb.Manifest(build_command=command))
    check_available([pb.INPUT], old, "resnet18.v1")
    with pytest.raises(MalformedRequest, match=f"has no HEATMAP.*build it again, with {command}"):
        check_available([pb.HEATMAP], old, "resnet18.v1")
