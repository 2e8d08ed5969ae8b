import io

import numpy as np
import pytest
from PIL import Image

from convoy.v1 import classifier_pb2 as pb
from export.catalog import Network, find
from export.checkpoints.load import Loaded, load
from export.console import PublishedVersion
from export.errors import ParityError
from export.preparation.reference import reference_pixels
from export.proof.golden import golden_images
from export.proof.parity import torch_answer
from export.proof.runtimes import torch_runtime


@pytest.fixture(scope="module")
def golden_photos(resnet18: Network, random_resnet18: Loaded) -> list[pb.GoldenImage]:
    return golden_images(
        resnet18,
        resnet18.preprocessing,
        resnet18.labels(),
        torch_runtime(random_resnet18.network, resnet18.mean, resnet18.std),
        is_random=True,
    )


def test_photos_are_small_and_differently_answered(golden_photos: list[pb.GoldenImage]) -> None:
    assert [golden.name for golden in golden_photos] == ["china.jpg", "flower.jpg"]
    assert all(len(golden.content) <= 16_000 for golden in golden_photos)
    assert {Image.open(io.BytesIO(golden.content)).format for golden in golden_photos} == {"JPEG"}
    first, second = (golden.expected[0] for golden in golden_photos)
    assert first.index != second.index


def test_expected_classes_are_the_best_with_their_labels(
    resnet18: Network, golden_photos: list[pb.GoldenImage]
) -> None:
    labels = resnet18.labels()
    for golden in golden_photos:
        scores = [expected.score for expected in golden.expected]
        assert len(scores) == 5 and scores == sorted(scores, reverse=True)
        for expected in golden.expected:
            label = labels[expected.index]
            assert (expected.label, expected.id) == (label.name, label.id)


def test_swapped_channels_are_outside_the_tolerance(
    resnet18: Network, random_resnet18: Loaded, golden_photos: list[pb.GoldenImage]
) -> None:
    answer = torch_answer(random_resnet18.network, resnet18.mean, resnet18.std)
    for golden in golden_photos:
        pixels = reference_pixels(golden.content, resnet18.preprocessing.photo)
        swapped = answer(np.ascontiguousarray(pixels[None, :, :, ::-1]))[0]
        best = golden.expected[0]
        assert abs(swapped[best.index] - best.score) > golden.tolerance


@pytest.mark.parametrize(
    ("size", "resize", "offset"),
    [((500, 375), 256, (58, 16)), ((333, 512), 232, (4, 66)), ((1023, 641), 256, (92, 16))],
)
def test_crop_is_the_published_one(
    size: tuple[int, int], resize: int, offset: tuple[int, int]
) -> None:
    """On the tables of sizes and offsets that torchvision's transforms give."""
    picture = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    )
    content = io.BytesIO()
    picture.save(content, "PNG")
    longer = int(resize * max(size) / min(size))
    whole = picture.resize(
        (longer, resize) if size[0] > size[1] else (resize, longer), Image.Resampling.BILINEAR
    )
    left, top = offset
    expected = np.asarray(whole)[top : top + 224, left : left + 224]
    assert np.array_equal(
        reference_pixels(content.getvalue(), pb.Photo(resize=resize, crop=224)), expected
    )


def test_digits_are_drawn_dark_on_light_and_of_different_classes(built: PublishedVersion) -> None:
    golden = built.model.golden_images
    assert 1 <= len({image.expected[0].label for image in golden}) == len(golden) <= 3
    for image in golden:
        assert len(image.content) <= 16_000
        picture = Image.open(io.BytesIO(image.content))
        assert (picture.format, picture.size) == ("PNG", (480, 440))
        assert np.asarray(picture)[0, 0] > np.asarray(picture).min() + 100


def test_trained_digits_are_answered_as_what_they_are() -> None:
    network = find("lenet5")
    runtime = torch_runtime(load(network, "digits").network, network.mean, network.std)
    golden = golden_images(
        network, network.preprocessing, network.labels(), runtime, is_random=False
    )
    assert len(golden) == 3
    for image in golden:
        assert image.name.endswith(f"a {image.expected[0].label}")
        assert image.tolerance == network.golden_tolerance


def test_a_preparation_that_changes_the_digit_ends_the_build() -> None:
    network = find("lenet5")
    runtime = torch_runtime(load(network, "digits").network, network.mean, network.std)
    tiny = pb.Preprocessing(digit=pb.Digit(size=32, box=3))
    with pytest.raises(ParityError, match="changes what lenet5 reads"):
        golden_images(network, tiny, network.labels(), runtime, is_random=False)
