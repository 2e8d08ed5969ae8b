import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from export.catalog import Checkpoint, Network, find, photo
from export.checkpoints import Loaded, load
from export.errors import CheckpointError
from export.parity import torch_answer
from export.samples import samples
from export.to_onnx import Servable

SEED_OF_OTHER_IMAGES = 5  # neither those of the calibration nor those of the proof


def answers(network: Network, loaded: Loaded, count: int) -> Any:
    images = samples(network, count, SEED_OF_OTHER_IMAGES).pixels
    return torch_answer(Servable(loaded.network, network.mean, network.std, "fp32"))(images)


def saved(path: Path, content: Any) -> str:
    torch.save(content, path)
    return str(path)


def state_of(loaded: Loaded) -> dict[str, Tensor]:
    return dict(loaded.network.state_dict())


# ------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("wrapped", ["plain", "state_dict", "module"])
def test_file_is_loaded_out_of_its_wrapper(
    wrapped: str, random_lenet5: Loaded, tmp_path: Path
) -> None:
    state = state_of(random_lenet5)
    content: Any = {
        "plain": state,
        "state_dict": {"epoch": 90, "state_dict": state},
        "module": {f"module.{name}": tensor for name, tensor in state.items()},
    }[wrapped]
    path = saved(tmp_path / "weights.pth", content)
    loaded = load(find("lenet5"), path)
    assert all(torch.equal(state[name], tensor) for name, tensor in state_of(loaded).items())
    assert (loaded.weights.source, loaded.weights.file) == ("file", "weights.pth")
    assert loaded.weights.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_old_file_without_batch_counts_is_loaded(
    resnet18: Network, random_resnet18: Loaded, tmp_path: Path
) -> None:
    state = random_resnet18.network.state_dict()  # with `_metadata`, as files of that time have
    for name in [name for name in state if name.endswith("num_batches_tracked")]:
        del state[name]
    loaded = load(resnet18, saved(tmp_path / "old.pth", state))
    assert torch.equal(state_of(loaded)["fc.weight"], state["fc.weight"])


def test_published_file_is_known_by_its_content(
    resnet18: Network, random_resnet18: Loaded, tmp_path: Path
) -> None:
    path = saved(tmp_path / "renamed.pth", state_of(random_resnet18))
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    published = Checkpoint("imagenet1k_v1", f"resnet18-{digest[:8]}.pth", photo(resize=256))
    loaded = load(dataclasses.replace(resnet18, checkpoints=(published,)), path)
    assert loaded.weights.source == "imagenet1k_v1"
    assert loaded.preprocessing.photo.resize == 256


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if key != name}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda state: without(state, "c5.weight"), r"it lacks c5\.weight\."),
        (lambda state: state | {"c9.bias": torch.zeros(1)}, r"it has besides c9\.bias\."),
        (
            lambda state: state | {"f6.bias": torch.zeros(85)},
            r"another shape for f6\.bias \[85\] instead of \[84\]\.",
        ),
        (
            lambda state: state | {"f6.bias": torch.full((84,), torch.nan)},
            r"not finite in f6\.bias",
        ),
        (lambda _: [1, 2], "holds no state dict"),
    ],
    ids=["missing", "unexpected", "shape", "nan", "list"],
)
def test_file_that_does_not_fit_is_refused_by_name(
    fault: Any, message: str, random_lenet5: Loaded, tmp_path: Path
) -> None:
    path = saved(tmp_path / "weights.pth", fault(state_of(random_lenet5)))
    with pytest.raises(CheckpointError, match=message):
        load(find("lenet5"), path)


class Harmful:
    """What weights_only=True is for: unpickling this would run code."""

    def __reduce__(self) -> Any:
        return (print, ("ran",))


def test_file_that_would_run_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path / "weights.pth", {"c1.weight": Harmful()})
    with pytest.raises(CheckpointError, match="is not a state dict"):
        load(find("lenet5"), path)
    assert capsys.readouterr().out == ""


def test_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"\xff\xd8 a photo")
    with pytest.raises(CheckpointError, match="is not a state dict"):
        load(find("lenet5"), str(path))


def test_misspelt_weights_are_refused_with_what_there_is() -> None:
    with pytest.raises(CheckpointError, match=r"no file radnom: .* imagenet, digits, random"):
        load(find("lenet5"), "radnom")


# ------------------------------------------------------------------------------------ kept weights


def test_imagenet_weights_never_become_random_by_silence() -> None:
    with pytest.raises(CheckpointError, match=r"--weights FILE .* resnet152-f82ba261\.pth"):
        load(find("resnet152"), find("resnet152").weights)


def test_network_that_no_digits_trained_says_so() -> None:
    with pytest.raises(CheckpointError, match="resnet152 is not trained on digits"):
        load(find("resnet152"), "digits")


def test_trained_weights_carry_what_was_measured() -> None:
    loaded = load(find("lenet5"), "digits")
    assert loaded.weights.source == "digits"
    held_out = loaded.accuracy[0]
    assert held_out.total == 360
    assert held_out.correct / held_out.total >= 0.985


# ----------------------------------------------------------------------------------------- random


def test_seed_decides_random_weights(random_lenet5: Loaded) -> None:
    lenet5 = find("lenet5")
    assert load(lenet5, "random", seed=0).weights == random_lenet5.weights
    assert load(lenet5, "random", seed=1).weights != random_lenet5.weights
    assert random_lenet5.weights.source == "random"


def test_random_weights_leave_the_callers_generator_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    load(find("lenet5"), "random")
    assert torch.equal(torch.rand(3), expected)


def assert_pictures_are_told_apart(network: Network, loaded: Loaded) -> None:
    """32 different crops: at least 12 best classes, and no two answers that parity would take for
    one another."""
    probabilities = answers(network, loaded, 32)
    assert len(set(probabilities.argmax(axis=1))) >= 12
    apart = np.abs(probabilities[:, None] - probabilities[None]).max(axis=2)
    assert (apart + np.eye(32)).min() > max(network.tolerances.values())


def test_random_weights_tell_pictures_apart(resnet18: Network, random_resnet18: Loaded) -> None:
    assert_pictures_are_told_apart(resnet18, random_resnet18)


def test_random_weights_tell_pictures_apart_152_layers_deep() -> None:
    resnet152 = find("resnet152")
    assert_pictures_are_told_apart(resnet152, load(resnet152, "random"))
