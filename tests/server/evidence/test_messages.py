import io

import numpy as np
import pytest
from PIL import Image

from convoy.v1 import classifier_pb2 as pb
from server.evidence.messages import scale, to_box, to_heatmap, to_layer, to_png, to_unfamiliar


def test_a_map_is_scaled_from_its_least_to_its_most() -> None:
    assert scale(np.array([[-2, 0], [2, 6]], np.float32)).tolist() == [[0, 0.25], [0.5, 1]]
    assert scale(np.full((2, 2), 3, np.float32)).tolist() == [[0, 0], [0, 0]]


def test_maps_are_those_of_the_answers_classes_in_their_order() -> None:
    evidence = pb.ModelEvidence(heatmap_height=1, heatmap_width=2, heatmap_passes=1)
    maps = {index: np.array([[index, 0]], np.float32) for index in (3, 1, 2)}
    classes = [pb.Class(label="two", index=2), pb.Class(label="nine", index=9)]
    heatmap = to_heatmap(evidence, maps, classes)
    assert [(entry.label, entry.index, list(entry.values)) for entry in heatmap.maps] == [
        ("two", 2, [2, 0])
    ]


def test_the_input_is_a_png_of_the_very_pixels() -> None:
    for channels in (1, 3):
        pixels = np.random.default_rng(0).integers(0, 256, (5, 4, channels), np.uint8)
        picture = np.asarray(Image.open(io.BytesIO(to_png(pixels))))
        np.testing.assert_array_equal(picture.reshape(pixels.shape), pixels)


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((256, 256), (16, 16, 240, 240)),
        ((1024, 512), (288, 32, 736, 480)),
        ((128, 256), (8, 72, 120, 184)),
    ],
)
def test_the_box_is_what_resize_and_crop_leave(
    size: tuple[int, int], box: tuple[float, ...]
) -> None:
    photo = to_box(pb.Preprocessing(photo=pb.Photo(resize=256, crop=224)), size)
    assert photo and (photo.left, photo.top, photo.right, photo.bottom) == pytest.approx(box)


def test_a_digit_has_no_box() -> None:
    assert to_box(pb.Preprocessing(digit=pb.Digit(size=32, box=20)), (300, 300)) is None


def test_a_layer_is_bytes_between_its_least_and_its_most() -> None:
    shape = pb.LayerShape(name="C1", maps=1, height=1, width=3)
    layer = to_layer(shape, np.array([[[-1, 0, 1]]], np.float32))
    assert (list(layer.pixels), layer.minimum, layer.maximum) == ([0, 128, 255], -1, 1)
    assert list(to_layer(shape, np.full((1, 1, 3), 2, np.float32)).pixels) == [0, 0, 0]


def test_the_threshold_is_the_manifests_and_absent_without_one() -> None:
    score = np.array([[0.25]], np.float32)
    unfamiliar = to_unfamiliar(pb.Manifest(unfamiliar_threshold=0.5), score)
    assert (unfamiliar.score, unfamiliar.threshold) == (0.25, 0.5)
    assert not to_unfamiliar(pb.Manifest(), score).HasField("threshold")
