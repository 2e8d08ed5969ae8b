"""Which of a checkpoint's tensors a build takes, on the smallest network of the catalog that takes
other classes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from export.catalog import find
from export.checkpoints.choices import Choices
from export.checkpoints.load import load
from export.checkpoints.state_dicts import architecture, fit
from export.errors import CheckpointError

NETWORK = find("nin_cifar10")
RAW = {name: tensor.clone() for name, tensor in architecture(NETWORK, 5).state_dict().items()}
AVERAGED = {name: tensor + 1 for name, tensor in RAW.items()}
MOMENTA = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}


def prefixed(prefix: str, state: dict[str, Tensor] = RAW) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def fitted(content: Any, key: str | None = None) -> dict[str, Tensor]:
    module = fit(NETWORK, content, Path("mine.pth"), 5, Choices(key))
    return dict(module.state_dict())


def is_raw(state: dict[str, Tensor]) -> bool:
    return all(torch.equal(state[name], tensor) for name, tensor in RAW.items())


@pytest.mark.parametrize(
    "content",
    [
        RAW,
        {"state_dict": RAW, "epoch": 3, "best_acc1": torch.tensor(71.0), "optimizer": MOMENTA},
        {"model_state_dict": RAW},
        {"net": {"weights": RAW}},
        prefixed("module."),
        prefixed("_orig_mod."),
        {"state_dict": prefixed("model."), "hyper_parameters": {"lr": 0.1}},
        prefixed("model.backbone."),
        prefixed("encoder._orig_mod."),
        prefixed("_orig_mod.module.model."),
        {name.replace("features.", "features.module."): RAW[name] for name in RAW},
        prefixed("module.") | {"n_averaged": torch.tensor(9)},
        {"model": RAW, "state_dict": {name: tensor.clone() for name, tensor in RAW.items()}},
        RAW | {"epoch": 3},
    ],
    ids=[
        "plain",
        "beside a training's state",
        "model_state_dict",
        "unknown wrappers",
        "DataParallel",
        "compiled",
        "Lightning",
        "nested",
        "in the middle",
        "three",
        "DataParallel of a part",
        "AveragedModel",
        "the same twice",
        "a number among the names",
    ],
)
def test_the_only_set_of_weights_is_taken(content: Any) -> None:
    assert is_raw(fitted(content))


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        ({"state_dict": AVERAGED, "state_dict_ema": RAW}, ["state_dict", "state_dict_ema"]),
        (
            {"state_dict": prefixed("model.", AVERAGED) | prefixed("ema_model.module.")},
            ["state_dict.model", "state_dict.ema_model"],
        ),
        ({"teacher": AVERAGED, "net": {"student": RAW}}, ["teacher", "net.student"]),
    ],
    ids=["timm", "Lightning", "nested"],
)
def test_two_sets_are_an_error_that_names_both(content: Any, keys: list[str]) -> None:
    first, second = keys
    with pytest.raises(
        CheckpointError,
        match=rf"2 sets of weights, {first} and {second}: .* --weights-key {second}",
    ):
        fitted(content)
    assert is_raw(fitted(content, second))
    assert not is_raw(fitted(content, first))


def test_key_may_name_what_is_around_the_weights() -> None:
    assert is_raw(fitted({"raw": AVERAGED, "ema": {"model": prefixed("module.")}}, "ema"))


def test_key_without_weights_is_answered_with_those_that_have_them() -> None:
    content = {"state_dict": AVERAGED, "state_dict_ema": RAW}
    with pytest.raises(CheckpointError, match=r"under 'ema': give --weights-key state_dict or st"):
        fitted(content, "ema")


def test_names_beside_the_prefix_are_refused_until_the_key_leaves_them_out() -> None:
    content = {"state_dict": prefixed("model.") | {"criterion.weight": torch.ones(5)}}
    with pytest.raises(
        CheckpointError, match=r"criterion\.weight beside .* give --weights-key state_dict\.model"
    ):
        fitted(content)
    assert is_raw(fitted(content, "state_dict.model"))


def test_weights_that_do_not_fit_are_answered_with_the_keys_of_the_file() -> None:
    content = {"epoch": 3, "net": {"a.weight": torch.ones(3)}, "optimizer": MOMENTA}
    with pytest.raises(
        CheckpointError, match=r": net lacks .*; its keys are epoch, net, optimizer"
    ):
        fitted(content)


def test_file_without_weights_is_answered_with_its_keys() -> None:
    with pytest.raises(
        CheckpointError, match=r"no state dict; its keys are epoch, optimizer: save"
    ):
        fitted({"epoch": 3, "optimizer": MOMENTA})


def test_mapping_that_contains_itself_ends() -> None:
    content: dict[str, Any] = {"epoch": 3}
    content["self"] = content
    with pytest.raises(CheckpointError, match="holds no state dict"):
        fitted(content)


@pytest.mark.parametrize("weights", ["imagenet", "digits", "random"])
def test_key_is_for_a_file(weights: str) -> None:
    with pytest.raises(CheckpointError, match="--weights-key is for a FILE of your own"):
        load(find("lenet5"), weights, choices=Choices(weights_key="ema"))


# ------------------------------------------------------------------------------------------ heads


def resnet18_with_head(**layers: Tensor) -> dict[str, Tensor]:
    with torch.device("meta"):
        state = dict(architecture(find("resnet18"), 5).state_dict())
    del state["fc.weight"], state["fc.bias"]
    return state | {f"fc.{name.replace('_', '.')}": tensor for name, tensor in layers.items()}


def test_linear_layer_in_a_sequential_is_answered_with_the_line_that_renames_it() -> None:
    state = resnet18_with_head(**{"1_weight": torch.ones(5, 512), "1_bias": torch.ones(5)})
    with pytest.raises(
        CheckpointError, match=r"its fc is a Sequential .* fc\.1: .*rename"
    ) as raised:
        fit(find("resnet18"), state, Path("mine.pth"), 5)
    line = str(raised.value).split("`")[1]
    exec(line.replace(": state", ":\n    state"), {"state": state})
    assert state["fc.weight"].shape == (5, 512) and "fc.1.bias" not in state


def test_several_layers_in_a_head_are_answered_with_the_way_over_onnx() -> None:
    state = resnet18_with_head(
        **{"0_weight": torch.ones(64, 512), "3_weight": torch.ones(5, 64), "3_bias": torch.ones(5)}
    )
    with pytest.raises(
        CheckpointError,
        match=r"Sequential with weights in fc\.0, fc\.3: .*torch\.onnx.*convoy adopt",
    ):
        fit(find("resnet18"), state, Path("mine.pth"), 5)
