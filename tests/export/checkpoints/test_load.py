import dataclasses
import hashlib
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from export.catalog import CATALOG, Checkpoint, Network, find, photo
from export.checkpoints.choices import Choices
from export.checkpoints.download import Downloads
from export.checkpoints.load import Loaded, load
from export.checkpoints.state_dicts import architecture, find_fitting, shapes
from export.checkpoints.weight_sets import choose_weights
from export.errors import CheckpointError
from export.files import TRAINED_WEIGHTS
from export.proof.parity import torch_answer
from export.samples.images import samples

SEED_OF_OTHER_IMAGES = 5  # neither those of the calibration nor those of the proof


def answers(network: Network, loaded: Loaded, count: int) -> Any:
    images = samples(network, count, SEED_OF_OTHER_IMAGES).pixels
    return torch_answer(loaded.network, network.mean, network.std)(images)


def saved(path: Path, content: Any) -> str:
    torch.save(content, path)
    return str(path)


def state_of(loaded: Loaded) -> dict[str, Tensor]:
    return dict(loaded.network.state_dict())


# ------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("form", ["zip", "older"])
def test_file_is_loaded_in_either_form(form: str, random_lenet5: Loaded, tmp_path: Path) -> None:
    state = state_of(random_lenet5)
    path = tmp_path / "weights.pth"
    torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    loaded = load(find("lenet5"), str(path))
    assert all(torch.equal(state[name], tensor) for name, tensor in state_of(loaded).items())
    assert (loaded.weights.source, loaded.weights.file) == ("file", "weights.pth")
    assert loaded.weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_safetensors_are_loaded(random_lenet5: Loaded, tmp_path: Path) -> None:
    state = state_of(random_lenet5)
    save_file(state, tmp_path / "weights.safetensors")
    loaded = load(find("lenet5"), str(tmp_path / "weights.safetensors"))
    assert all(torch.equal(state[name], tensor) for name, tensor in state_of(loaded).items())


def test_old_file_without_batch_counts_is_loaded(
    resnet18: Network, random_resnet18: Loaded, tmp_path: Path
) -> None:
    state = random_resnet18.network.state_dict()  # with `_metadata`, as files of that time have
    for name in [name for name in state if name.endswith("num_batches_tracked")]:
        del state[name]
    loaded = load(resnet18, saved(tmp_path / "old.pth", state))
    assert torch.equal(state_of(loaded)["fc.weight"], state["fc.weight"])


@pytest.mark.parametrize("name", ["googlenet", "googlenet_2014", "inception_v3"])
def test_auxiliary_heads_are_left_out(name: str) -> None:
    module = import_module(f"export.architectures.{name.removesuffix('_2014')}")
    with torch.device("meta"):
        trained = getattr(module, name)(aux_heads=True).state_dict()
    own = shapes(find(name), 1000).keys()
    chosen = choose_weights({"state_dict": dict(trained)}, own, Path("trained.pth"))
    assert len(chosen.state) < len(trained)
    assert find_fitting(dict(trained)) == [name]


def test_published_file_is_known_by_its_content(
    resnet18: Network, random_resnet18: Loaded, tmp_path: Path
) -> None:
    path = saved(tmp_path / "renamed.pth", state_of(random_resnet18))
    loaded = load(dataclasses.replace(resnet18, checkpoints=(published_as(path),)), path)
    assert loaded.weights.source == "imagenet1k_v1"
    assert loaded.preprocessing.photo.resize == 256


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if key != name}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda state: without(state, "c5.weight"), r"it lacks c5\.weight;"),
        (lambda state: state | {"c9.bias": torch.zeros(1)}, r"it also has c9\.bias;"),
        (
            lambda state: state | {"f6.bias": torch.zeros(85)},
            r"another shape for f6\.bias \[85\] instead of \[84\]; it fits no network of the",
        ),
        (
            lambda state: state | {"f6.bias": torch.full((84,), torch.nan)},
            r"not finite in f6\.bias\.",
        ),
        (lambda _: [1, 2], "holds no state dict"),
        (lambda state: {1: state["f6.bias"]}, "holds no state dict"),
    ],
    ids=["missing", "unexpected", "shape", "nan", "list", "numbered"],
)
def test_file_that_does_not_fit_is_refused_by_name(
    fault: Any, message: str, random_lenet5: Loaded, tmp_path: Path
) -> None:
    path = saved(tmp_path / "weights.pth", fault(state_of(random_lenet5)))
    with pytest.raises(CheckpointError, match=message):
        load(find("lenet5"), path)


def test_file_of_another_network_is_answered_with_its_name(
    random_resnet18: Loaded, tmp_path: Path
) -> None:
    path = saved(tmp_path / "weights.pth", state_of(random_resnet18))
    with pytest.raises(
        CheckpointError,
        match=r"does not fit resnet34: it lacks layer1\.2\.conv1\.weight.*; it fits resnet18\.",
    ):
        load(find("resnet34"), path)


def test_names_and_shapes_tell_the_networks_apart() -> None:
    known: dict[Any, str] = {}
    alike = []
    for name, network in CATALOG.items():
        form = frozenset(shapes(network, len(network.labels())).items())
        alike += [(known[form], name)] if form in known else []
        known[form] = name
    assert alike == [("plain20_digits", "resnet20_digits")]  # option A's shortcuts have no weights


@pytest.mark.parametrize("name", sorted(set(CATALOG) - {"lenet5"}))
def test_each_network_takes_other_classes(name: str) -> None:
    network = find(name)
    own, other = shapes(network, len(network.labels())), shapes(network, 5)
    head = [key for key in own if own[key] != other[key]]
    assert {key.rpartition(".")[2] for key in head} == {"weight", "bias"} and len(head) == 2
    assert {other[key][0] for key in head} == {5}


def test_misspelt_weights_are_refused_with_what_there_is() -> None:
    with pytest.raises(CheckpointError, match=r"no file radnom: .* imagenet, .* digits, random"):
        load(find("lenet5"), "radnom")


# --------------------------------------------------------------------------------- other classes


def fine_tuned(path: Path, classes: int) -> str:
    return saved(path, architecture(find("nin_cifar10"), classes).state_dict())


def test_file_of_another_network_is_known_by_other_classes_too(tmp_path: Path) -> None:
    path = fine_tuned(tmp_path / "flowers.pth", 5)
    with pytest.raises(CheckpointError, match=r"it fits nin_cifar10 with 5 classes\.$"):
        load(find("nin"), path, classes=5)


def test_head_has_the_classes_of_the_file(tmp_path: Path) -> None:
    path = fine_tuned(tmp_path / "flowers.pth", 5)
    loaded = load(find("nin_cifar10"), path, classes=5)
    assert loaded.network(torch.zeros(1, 3, 32, 32)).shape == (1, 5)
    assert loaded.weights.source == "file"


@pytest.mark.parametrize("labels", [None, 4])
def test_classes_that_have_no_label_are_refused_with_both_numbers(
    labels: int | None, tmp_path: Path
) -> None:
    path = fine_tuned(tmp_path / "flowers.pth", 5)
    with pytest.raises(
        CheckpointError,
        match=rf"has 5 classes, and there are {labels or 10} labels: give --labels ",
    ):
        load(find("nin_cifar10"), path, classes=labels)


def test_softmax_over_one_output_is_refused_and_sigmoid_is_not(tmp_path: Path) -> None:
    path = fine_tuned(tmp_path / "defect.pth", 1)
    with pytest.raises(
        CheckpointError,
        match=r"defect\.pth has one output: softmax .* give --activation sigmoid if",
    ):
        load(find("nin_cifar10"), path, classes=1)
    loaded = load(find("nin_cifar10"), path, classes=1, choices=Choices(activation="sigmoid"))
    assert loaded.network(torch.zeros(1, 3, 32, 32)).shape == (1, 1)


@pytest.mark.parametrize("weights", ["imagenet", "imagenet1k_v1", "digits", "random"])
def test_only_a_file_has_other_classes(weights: str) -> None:
    with pytest.raises(CheckpointError, match=f"The {weights} weights of alexnet have"):
        load(find("alexnet"), weights, classes=5)


@pytest.mark.parametrize(
    ("weights", "choices", "option"),
    [
        ("digits", Choices(weights_key="ema"), "--weights-key"),
        ("random", Choices(transform_input=True), "--transform-input"),
        ("random", Choices(transform_input=False), "--no-transform-input"),
        ("imagenet", Choices(activation="sigmoid"), "--activation sigmoid"),
    ],
)
def test_what_a_file_does_not_tell_is_asked_for_a_file_alone(
    weights: str, choices: Choices, option: str
) -> None:
    with pytest.raises(CheckpointError, match=f"^{option} is for a FILE of your own"):
        load(find("lenet5"), weights, choices=choices)


# -------------------------------------------------------------------------------- transform_input


@pytest.fixture(scope="module")
def googlenet(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("googlenet") / "mine.pth"
    return saved(path, architecture(find("googlenet"), 5).state_dict())


def test_transform_input_of_a_file_is_asked(googlenet: str) -> None:
    with pytest.raises(
        CheckpointError,
        match=r"not tell whether googlenet .* 0\.5: give --transform-input for .* published ones, "
        r"which have it on, or --no-transform-input for .* without weights",
    ):
        load(find("googlenet"), googlenet, classes=5)


def test_transform_input_changes_the_network_as_it_was_said(googlenet: str) -> None:
    pixels = torch.full((1, 3, 64, 64), 0.7)
    answers = {}
    for said in (True, False):
        loaded = load(
            find("googlenet"), googlenet, classes=5, choices=Choices(transform_input=said)
        )
        with torch.inference_mode():
            answers[said] = loaded.network(pixels)
            known = architecture(find("googlenet"), 5, said).eval()
            known.load_state_dict(loaded.network.state_dict())
            assert torch.equal(answers[said], known(pixels))
    assert not torch.allclose(answers[True], answers[False])


def test_published_weights_tell_it_by_their_content(googlenet: str) -> None:
    network = dataclasses.replace(find("googlenet"), checkpoints=(published_as(googlenet),))
    loaded = load(network, googlenet, classes=5)
    assert type(loaded.network.get_submodule("transform_input")).__name__ == "TransformInput"
    with pytest.raises(CheckpointError, match=r"published weights of googlenet, .* leave --no-tr"):
        load(network, googlenet, classes=5, choices=Choices(transform_input=False))


def test_network_without_transform_input_says_so(tmp_path: Path) -> None:
    path = fine_tuned(tmp_path / "flowers.pth", 5)
    with pytest.raises(CheckpointError, match="is for googlenet and inception_v3, and nin_cifar10"):
        load(find("nin_cifar10"), path, classes=5, choices=Choices(transform_input=True))


# ------------------------------------------------------------------------------------ kept weights


def published_as(path: str, source: str = "imagenet1k_v1", resize: int = 256) -> Checkpoint:
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return Checkpoint(source, f"nin-{digest[:8]}.pth", photo(resize=resize))


def test_published_weights_are_the_first_unless_others_are_named(tmp_path: Path) -> None:
    network = find("nin_cifar10")
    paths = [fine_tuned(tmp_path / name, 10) for name in ("v2.pth", "v1.pth")]
    v2 = published_as(paths[0], "imagenet1k_v2", resize=232)
    v1 = published_as(paths[1], "imagenet1k_v1", resize=256)
    for path, checkpoint in zip(paths, (v2, v1), strict=True):
        Path(path).rename(tmp_path / checkpoint.file)
    network = dataclasses.replace(network, checkpoints=(v2, v1))
    downloads = Downloads("http://127.0.0.1:1/", tmp_path)
    for weights, expected in {"imagenet": v2, "imagenet1k_v2": v2, "imagenet1k_v1": v1}.items():
        loaded = load(network, weights, downloads=downloads)
        assert (loaded.weights.source, loaded.weights.file) == (expected.source, expected.file)
        assert loaded.preprocessing == expected.preprocessing


def test_imagenet_weights_never_become_random_by_silence(tmp_path: Path) -> None:
    resnet152 = find("resnet152")
    downloads = Downloads("http://127.0.0.1:1/", tmp_path)
    with pytest.raises(CheckpointError, match=r"resnet152-f82ba261\.pth.*--weights FILE"):
        load(resnet152, resnet152.weights, downloads=downloads)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("nin", "imagenet", "No weights of nin are published: give --weights FILE .* random"),
        ("lenet5", "imagenet", "No weights of lenet5 are published: give --weights digits"),
        (
            "resnet18",
            "imagenet1k_v2",
            "No imagenet1k_v2 weights of resnet18 are published: give --weights imagenet1k_v1,",
        ),
    ],
)
def test_weights_that_nobody_published_are_answered_with_the_choices(
    name: str, weights: str, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load(find(name), weights)


def test_network_that_no_digits_trained_says_so() -> None:
    with pytest.raises(CheckpointError, match="resnet152 is not trained on digits"):
        load(find("resnet152"), "digits")


def test_trained_weights_carry_what_was_measured() -> None:
    loaded = load(find("lenet5"), "digits")
    assert loaded.weights.source == "digits"
    held_out = loaded.accuracy[0]
    assert held_out.total == 360
    assert held_out.correct / held_out.total >= 0.985
    facts = json.loads((TRAINED_WEIGHTS / "lenet5.json").read_text())
    assert loaded.temperature == facts["temperature"]
    assert loaded.unfamiliar_threshold == facts["unfamiliar"]["threshold"]


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
    assert (apart + np.eye(32)).min() > network.random_fp16_tolerance


def test_random_weights_tell_pictures_apart(resnet18: Network, random_resnet18: Loaded) -> None:
    assert_pictures_are_told_apart(resnet18, random_resnet18)


@pytest.mark.slow
def test_random_weights_tell_pictures_apart_152_layers_deep() -> None:
    resnet152 = find("resnet152")
    assert_pictures_are_told_apart(resnet152, load(resnet152, "random"))
