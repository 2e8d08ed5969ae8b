"""Each mistake that an export can make fails on the rung that is there to catch it."""

import copy
import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from export.architectures import nin, resnet
from export.architectures.resnet import CifarResNet
from export.architectures.taps import Taps
from export.build import run
from export.catalog import Network, find
from export.conversion import to_onnx
from export.conversion.to_onnx import ServedNetwork
from export.errors import ParityError
from export.options import Options

FIRST_RUNG = (
    r"PyTorch fp32 → ONNX fp32: a probability of (china\.jpg|flower\.jpg|held-out digit) "
    r".* 0\.0001 is allowed"
)


@pytest.fixture
def mutant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """To change the product. What a mutant makes is no stage of any other build.

    Two networks are shallow there: an export takes as long as the network is deep.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(resnet, "resnet20_digits", partial(CifarResNet, 8))
    monkeypatch.setattr(nin, "nin_cifar10", shallow)
    return monkeypatch


def shallow(classes: int = 10) -> nn.Module:
    layers = (
        nn.Conv2d(3, 8, 5, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 14 * 14, classes),
    )
    return nn.Sequential(*layers)


def plant(mistake: Callable[[ServedNetwork], None], mutant: pytest.MonkeyPatch) -> None:
    class Mistaken(ServedNetwork):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            mistake(self)

    mutant.setattr(to_onnx, "ServedNetwork", Mistaken)


def expect_refusal(name: str, reason: str, repository: Path) -> None:
    """On few images: a mistake shows in each of them."""
    network = dataclasses.replace(find(name), proof_images=16)
    with pytest.raises(ParityError, match=reason):
        run(Options(network, "fp32", "random", 0, repository))
    assert not list(repository.glob(f"{name}.*"))


def wrong_mean(servable: ServedNetwork) -> None:
    servable.mean += 0.02


def wrong_std(servable: ServedNetwork) -> None:
    servable.std *= 1.02


def wrong_eps(servable: ServedNetwork) -> None:
    for module in servable.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3


def swapped_channels(servable: ServedNetwork) -> None:
    servable.network = nn.Sequential(Swapped(), servable.network)


class Swapped(nn.Module):
    def forward(self, images: Tensor) -> Tensor:  # N×C×H×W
        return images.flip(1)


@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        ("nin_cifar10", wrong_mean),
        ("nin_cifar10", wrong_std),
        ("nin_cifar10", swapped_channels),
        ("resnet20_digits", wrong_eps),
    ],
)
def test_a_mistake_of_the_export_fails_on_the_first_rung(
    name: str,
    mistake: Callable[[ServedNetwork], None],
    tmp_path: Path,
    mutant: pytest.MonkeyPatch,
) -> None:
    plant(mistake, mutant)
    expect_refusal(name, FIRST_RUNG, tmp_path / "models")


def swapped_axes(servable: ServedNetwork) -> None:
    right = servable.evidence._heatmaps
    servable.evidence._heatmaps = lambda best: right(best).transpose(2, 3)  # type: ignore[method-assign]


def weights_of_another_class(servable: ServedNetwork) -> None:
    right = servable.evidence._heatmaps
    servable.evidence._heatmaps = lambda best: right((best + 1) % 10)  # type: ignore[method-assign]


def maps_of_another_layer(servable: ServedNetwork) -> None:
    """Of the same shape, inside the last block."""
    evidence = servable.evidence
    inside = servable.network.get_submodule("layer3.0.bn2")
    inside.register_forward_pre_hook(evidence._read("earlier"))
    right = evidence._heatmaps

    def wrong(best: Tensor) -> Tensor:
        evidence._inputs["avgpool"] = evidence._inputs["earlier"]
        return right(best)

    evidence._heatmaps = wrong  # type: ignore[method-assign]


def features_of_another_layer(servable: ServedNetwork) -> None:
    evidence = servable.evidence
    evidence._features = lambda: evidence._inputs["layer3"].mean((2, 3)).repeat(1, 2)  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("mistake", "what"),
    [
        (swapped_axes, "a map of held-out digit"),
        (weights_of_another_class, "a map of held-out digit"),
        (maps_of_another_layer, "a map of held-out digit"),
        (features_of_another_layer, "the features of held-out digit"),
    ],
)
def test_a_mistake_of_the_evidence_fails_on_the_first_rung(
    mistake: Callable[[ServedNetwork], None],
    what: str,
    tmp_path: Path,
    mutant: pytest.MonkeyPatch,
) -> None:
    plant(mistake, mutant)
    expect_refusal("resnet20_digits", f"PyTorch fp32 → ONNX fp32: {what}", tmp_path / "models")


def test_taps_that_name_another_module_fail_on_the_first_rung(
    tmp_path: Path, mutant: pytest.MonkeyPatch
) -> None:
    mutant.setattr(CifarResNet, "taps", Taps(last_layer="fc", average="layer3.0.bn2"))
    expect_refusal("resnet20_digits", "heat-maps are not those of the classes", tmp_path / "models")


def test_a_mistake_of_the_precision_fails_on_its_rung(
    tmp_path: Path, mutant: pytest.MonkeyPatch
) -> None:

    class Mistaken(ServedNetwork):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            if self.dtype == torch.float16:
                self.network = copy.deepcopy(self.network)
                next(iter(self.network.parameters())).data.mul_(1.5)

    mutant.setattr(to_onnx, "ServedNetwork", Mistaken)
    with pytest.raises(ParityError, match=r"ONNX fp32 → ONNX fp16: .* 0.02 is allowed"):
        run(Options(find("lenet5"), "fp16", "digits", 0, tmp_path / "models"))


def test_trained_weights_are_held_to_a_tighter_fp16_than_random_ones() -> None:
    for network in (find("nin_digits"), find("resnet20_digits")):
        assert network.tolerance("fp16", is_random=False) == 0.02
        assert network.tolerance("fp16", is_random=True) == 0.15


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pages with digits, as a user has them."""
    from export.proof.golden import draw_page
    from export.samples.images import digits

    folder = tmp_path_factory.mktemp("pictures")
    for number, plane in enumerate(digits(12, seed=0).pixels):
        (folder / f"{number:02}.png").write_bytes(draw_page(plane))
    Image.new("L", (64, 64), 255).save(folder / "blank.png")
    return folder


def int8(weights: str, pictures: Path, tmp_path: Path) -> Options:
    return Options(find("lenet5"), "int8", weights, 0, tmp_path / "models", calibration=pictures)


def expect_more_of_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row of the network, by which stages are kept, stays as it is: fp32 comes from there."""
    right = Network.tolerance

    def strict(network: Network, rung: str, *, is_random: bool) -> float:
        return 1e-6 if rung == "int8" else right(network, rung, is_random=is_random)

    monkeypatch.setattr(Network, "tolerance", strict)


def test_int8_is_judged_on_trained_weights(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        expect_more_of_int8(patch)
        with pytest.raises(ParityError, match=r"ONNX fp32 → ONNX int8: .* 1e-06 is allowed"):
            run(int8("digits", pictures, tmp_path))
    published = run(int8("digits", pictures, tmp_path))
    manifest, rungs = published.model.manifest, published.model.parity
    calibration = manifest.calibration
    assert (manifest.precision, calibration.images, calibration.refused) == ("int8", 12, 1)
    assert manifest.precision_recipe.startswith("int8 for cpu: Q/DQ")
    assert "--int8 --calibration pictures" in manifest.build_command.replace(
        pictures.name, "pictures"
    )
    assert [rung.name for rung in rungs] == [
        "PyTorch fp32 → ONNX fp32",
        "ONNX fp32 → ONNX int8",
        "ONNX int8 → served",
    ]
    assert not any(rung.reported_only for rung in rungs)


def test_int8_is_reported_on_random_weights(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect_more_of_int8(monkeypatch)
    published = run(int8("random", pictures, tmp_path))
    assert [rung.reported_only for rung in published.model.parity] == [False, True, False]


def test_a_batch_size_of_ones_own_is_proven_and_configured(tmp_path: Path) -> None:
    options = Options(find("lenet5"), "fp32", "random", 0, tmp_path / "models", max_batch=5)
    published = run(options)
    assert all(list(rung.batch_sizes) == [1, 2, 3, 5] for rung in published.model.parity)
    assert "max_batch_size: 5" in (published.folder / "config.pbtxt").read_text()[:200]
