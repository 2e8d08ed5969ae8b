"""A build with a preparation of one's own: proven from the weights to the served answer."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convoy.v1 import classifier_pb2 as pb
from export.build import run
from export.catalog import find
from export.checkpoints.state_dicts import architecture
from export.console import PublishedVersion, print_version
from export.options import Options
from export.preparation.options import PreparationOptions
from export.proof.private_gateway import private_gateway

PREPARATION = PreparationOptions(
    resize=40,
    crop="32",
    interpolation="area",
    resize_mode="pad",
    channels="bgr",
    mean="0.1,0.2,0.3",
    std="0.2,0.3,0.4",
    fill="9,99,199",
)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> PublishedVersion:
    folder = tmp_path_factory.mktemp("prepared")
    torch.manual_seed(0)
    network = find("nin_cifar10")
    torch.save(architecture(network, 10).state_dict(), folder / "mine.pth")
    options = Options(
        PREPARATION.given.prepare(network),
        "fp32",
        str(folder / "mine.pth"),
        0,
        folder / "models",
        preparation=PREPARATION,
    )
    return run(options)


def test_the_version_says_how_its_pictures_are_prepared(published: PublishedVersion) -> None:
    photo = published.model.preprocessing.photo
    assert (photo.resize, photo.crop, photo.interpolation) == (40, 32, pb.AREA)
    assert (photo.resize_mode, photo.channel_order) == (pb.PAD, pb.BGR)
    assert (list(photo.mean), list(photo.fill)) == ([0.1, 0.2, 0.3], [9, 99, 199])
    assert list(published.model.input.mean) == [0.3, 0.2, 0.1]
    manifest = published.model.manifest
    assert manifest.preparation == pb.PreparationOrigin(source="given")


def test_every_rung_agrees(published: PublishedVersion) -> None:
    assert [rung.name for rung in published.model.parity] == [
        "PyTorch fp32 → ONNX fp32",
        "ONNX fp32 → served",
    ]
    assert {rung.top1_agreement for rung in published.model.parity} == {1.0}


def test_a_gateway_prepares_and_says_it(published: PublishedVersion, tmp_path: Path) -> None:
    """The answer is that of the weights for what PyTorch and numpy make of the picture."""
    Image.new("RGB", (80, 20), (250, 20, 120)).save(tmp_path / "wide.png")
    prepared = np.full((32, 32, 3), (9, 99, 199), np.float32)
    prepared[11:21] = (250, 20, 120)  # 40×10, of which 4 columns on either side are cut off
    inputs = (prepared[..., ::-1] / 255 - (0.1, 0.2, 0.3)) / (0.2, 0.3, 0.4)
    module = architecture(find("nin_cifar10"), 10)
    module.load_state_dict(torch.load(published.folder.parents[1] / "mine.pth"))
    with torch.inference_mode():
        tensor = torch.from_numpy(inputs.astype(np.float32).transpose(2, 0, 1).copy())
        expected = module.eval()(tensor[None]).softmax(1)[0].numpy()
    staged = shutil.copytree(published.folder, tmp_path / "nin_cifar10.v1.staging")
    with private_gateway(staged) as client:
        answer = client.classify(tmp_path / "wide.png", model="nin_cifar10", top_k=10)
        described = client.model("nin_cifar10")
    scores = {each.index: each.score for each in answer.classes}
    assert [scores[index] for index in range(10)] == pytest.approx(expected.tolist(), abs=1e-4)
    assert described.preparation.startswith("The longer side is resized to 40 pixels (area), ")
    assert described.preparation.endswith("; as given.")


def test_a_build_prints_it_and_warns_only_of_what_is_assumed(
    published: PublishedVersion, capsys: pytest.CaptureFixture[str]
) -> None:
    print_version(published)
    printed = capsys.readouterr()
    assert "  pictures: The longer side is resized to 40 pixels (area), padded with" in printed.out
    assert printed.err == ""
    model = pb.Model()
    model.CopyFrom(published.model)
    model.manifest.preparation.assumed.append("mean")
    print_version(PublishedVersion(published.folder, model))
    assert "WARNING: mine.pth does not say" in (warning := capsys.readouterr().err)
    assert "Assumed: mean." in warning
