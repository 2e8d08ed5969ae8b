"""Files that say how pictures are prepared, as timm, torchvision and Hugging Face write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from export.errors import PreparationError
from export.preparation.files import read_preprocessing
from export.preparation.given import Given

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
TIMM = {
    "architecture": "resnet50",
    "num_classes": 1000,
    "num_features": 2048,
    "pretrained_cfg": {
        "tag": "a1_in1k",
        "custom_load": False,
        "input_size": [3, 224, 224],
        "test_input_size": [3, 288, 288],
        "fixed_input_size": False,
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "test_crop_pct": 1.0,
        "crop_mode": "center",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "num_classes": 1000,
        "pool_size": [7, 7],
        "first_conv": "conv1",
        "classifier": "fc",
        "origin_url": "https://example.org",
        "paper_ids": "arXiv:2110.00476",
    },
}
VIT = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 224, "width": 224},
}
PRESET = """ImageClassification(
    crop_size=[224]
    resize_size=[232]
    mean=[0.485, 0.456, 0.406]
    std=[0.229, 0.224, 0.225]
    interpolation=InterpolationMode.BILINEAR
)
"""
TORCHVISION = {
    "crop_size": [299],
    "resize_size": [342],
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "antialias": False,
}


def read(folder: Path, content: object) -> Given:
    path = folder / "preparation.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_preprocessing(path)


def changed(document: dict[str, Any], **values: Any) -> dict[str, Any]:
    """With other values; without those that are Ellipsis."""
    if "pretrained_cfg" in document:
        return {**document, "pretrained_cfg": changed(document["pretrained_cfg"], **values)}
    return {key: value for key, value in {**document, **values}.items() if value is not ...}


def given(**said: Any) -> Given:
    usual = {"antialias": True, "channels": "rgb", "file": "preparation.json", **IMAGENET}
    return Given(**{**usual, **said})


HALF = {"mean": (0.5,) * 3, "std": (0.5,) * 3}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            PRESET,
            given(resize=232, crop=224, interpolation="bilinear", resize_mode="shorter"),
        ),
        (
            TORCHVISION,
            given(
                resize=342,
                crop=299,
                interpolation="bicubic",
                resize_mode="shorter",
                antialias=False,
                **HALF,
            ),
        ),
        (
            TIMM,
            given(resize=235, crop=224, interpolation="bicubic", resize_mode="shorter"),
        ),
        (
            changed(TIMM, crop_mode="squash", crop_pct=1),
            given(resize=224, crop=224, interpolation="bicubic", resize_mode="squash"),
        ),
        (
            changed(TIMM, crop_mode="border", crop_pct=...),
            given(
                resize=256,
                crop=224,
                interpolation="bicubic",
                resize_mode="pad",
                fill=(124, 116, 104),
            ),
        ),
        (
            TIMM["pretrained_cfg"],  # alone, as older files have it
            given(resize=235, crop=224, interpolation="bicubic", resize_mode="shorter"),
        ),
        (
            VIT,
            given(resize=224, crop=224, interpolation="bilinear", resize_mode="squash", **HALF),
        ),
        (
            changed(VIT, image_processor_type=..., feature_extractor_type="ViTFeatureExtractor"),
            given(resize=224, crop=224, interpolation="bilinear", resize_mode="squash", **HALF),
        ),
        (
            changed(VIT, size=384, resample=3),
            given(resize=384, crop=384, interpolation="bicubic", resize_mode="squash", **HALF),
        ),
        (
            changed(
                VIT,
                image_processor_type="CLIPImageProcessor",
                size={"shortest_edge": 224},
                do_center_crop=True,
                crop_size={"height": 224, "width": 224},
                do_convert_rgb=True,
            ),
            given(resize=224, crop=224, interpolation="bilinear", resize_mode="shorter", **HALF),
        ),
        (
            changed(
                VIT,
                image_processor_type="DeiTImageProcessorFast",
                size=256,
                do_center_crop=True,
                crop_size=224,
                do_pad=None,
            ),
            given(resize=256, crop=224, interpolation="bilinear", resize_mode="squash", **HALF),
        ),
        (
            changed(
                VIT,
                image_processor_type="ConvNextImageProcessor",
                size={"shortest_edge": 224},
                crop_pct=0.875,
                resample=3,
            ),
            given(resize=256, crop=224, interpolation="bicubic", resize_mode="shorter", **HALF),
        ),
        (
            changed(
                VIT,
                image_processor_type="ConvNextImageProcessor",
                size={"shortest_edge": 384},
                crop_pct=0.875,
            ),
            given(resize=384, crop=384, interpolation="bilinear", resize_mode="squash", **HALF),
        ),
        (
            changed(
                VIT,
                image_processor_type="MobileViTImageProcessor",
                size={"shortest_edge": 288},
                do_center_crop=True,
                crop_size={"height": 256, "width": 256},
                do_normalize=...,
                image_mean=...,
                image_std=...,
            ),
            given(
                resize=288,
                crop=256,
                interpolation="bilinear",
                resize_mode="shorter",
                channels="bgr",
                mean=(0, 0, 0),
                std=(1, 1, 1),
            ),
        ),
        (
            changed(VIT, rescale_factor=1 / 127.5, image_mean=[1, 1, 1], image_std=[1, 1, 1]),
            given(resize=224, crop=224, interpolation="bilinear", resize_mode="squash", **HALF),
        ),
        (
            changed(VIT, do_rescale=False, image_mean=[127.5] * 3, image_std=[127.5] * 3),
            given(resize=224, crop=224, interpolation="bilinear", resize_mode="squash", **HALF),
        ),
    ],
)
def test_a_file_says_what_its_library_does(
    tmp_path: Path, document: object, expected: Given
) -> None:
    assert read(tmp_path, document) == expected


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (changed(TIMM, interpolation="random"), "interpolation 'random', must be one of bilinear"),
        (changed(TIMM, crop_mode="fancy"), "crop_mode 'fancy', must be one of center"),
        (changed(TIMM, crop_border_pixels=4), "has crop_border_pixels, which may change pixels"),
        (changed(TIMM, input_size=[3, 224, 256]), r"input_size \[3, 224, 256\], must be three"),
        (changed(TIMM, input_size=[1, 28, 28]), r"input_size \[1, 28, 28\], must be three"),
        (changed(TIMM, mean=...), "has mean None, must be numbers"),
        (changed(TIMM, crop_pct=0), "crop_pct 0.0, must be above 0"),
        ({**TIMM, "augmentation": "x"}, "has augmentation, which may change pixels"),
        (changed(VIT, image_processor_type="LevitImageProcessor"), "'LevitImageProcessor', must"),
        (changed(VIT, image_processor_type=...), "has image_processor_type None, must be one of"),
        (changed(VIT, do_resize=False), "do_resize False, must be true"),
        (changed(VIT, resample=5), "resample 5, must be one of 0, 1, 2"),
        (changed(VIT, resample=...), "lacks resample"),
        (changed(VIT, do_pad=True), "has do_pad True, which would change pixels"),
        (changed(VIT, rescale_offset=True), "has rescale_offset True"),
        (changed(VIT, sharpen=2), "has sharpen, which may change pixels"),
        (changed(VIT, size={"shortest_edge": 224}), "do_center_crop False, must be true"),
        (changed(VIT, size={"longest_edge": 224}), "size {'longest_edge': 224}, must be the side"),
        (changed(VIT, size={"height": 224, "width": 200}), "must be the side of a square"),
        (changed(VIT, rescale_factor=0), "rescale_factor 0.0, must be above 0"),
        (changed(TORCHVISION, crop_size=[224, 200]), r"crop_size \[224, 200\], must be one number"),
        (changed(TORCHVISION, gamma=2.2), "has gamma, which may change pixels"),
        (PRESET.replace("[232]", "open('x')"), "which is no value"),
        (PRESET.replace("BILINEAR", "HAMMING"), "interpolation 'hamming', must be one of"),
        ({"model_type": "vit", "image_size": 224}, "says no preparation that is known"),
        ([1, 2], "says no preparation that is known"),
        ("resize: 224", "is no JSON: --preprocessing takes timm's config.json"),
        ("[" * 100_000, "is no JSON"),
        (" " * (1 << 20) + "{}", "has more than 1 MiB"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(
    tmp_path: Path, document: object, message: str
) -> None:
    with pytest.raises(PreparationError, match=message):
        read(tmp_path, document)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(PreparationError, match=r"missing\.json cannot be read \(No such file"):
        read_preprocessing(tmp_path / "missing.json")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(PreparationError, match=r"photo\.jpg is no UTF-8 text"):
        read_preprocessing(tmp_path / "photo.jpg")
