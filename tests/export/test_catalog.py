import dataclasses
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from export.catalog import CATALOG, IMAGENET_CLASSES, NETWORKS, by_name, find
from export.errors import UnknownNetwork

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", CATALOG)
def test_architecture_answers_one_logit_a_label(name: str) -> None:
    """On the meta device, which has shapes and no numbers: the large networks take seconds."""
    network = find(name)
    with torch.device("meta"), torch.inference_mode():
        module = network.build().eval()
        logits = module(torch.zeros(2, network.channels, network.size, network.size))
    assert logits.shape == (2, len(network.labels()))


@pytest.mark.parametrize("name", CATALOG)
def test_row_is_sound(name: str) -> None:
    network = find(name)
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name)
    assert len(network.mean) == len(network.std) == network.input.channels
    kind = network.preprocessing.WhichOneof("kind")
    side = network.preprocessing.photo.crop or network.preprocessing.digit.size
    assert (kind, side) == ("digit" if network.channels == 1 else "photo", network.size)
    if network.checkpoints:
        assert network.checkpoints[0].preprocessing == network.preprocessing
    for checkpoint in network.checkpoints:
        assert re.fullmatch("[0-9a-f]{8}", checkpoint.sha256_prefix)


def test_second_row_of_a_name_is_refused() -> None:
    copy = dataclasses.replace(find("lenet5"), paper="another")
    with pytest.raises(ValueError, match="'lenet5'"):
        by_name([*NETWORKS, copy])


def test_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNetwork, match=r"'ResNet-152'.*did you mean resnet152"):
        find("ResNet-152")


def test_name_like_no_other_is_answered_with_all() -> None:
    with pytest.raises(UnknownNetwork, match=", ".join(CATALOG)):
        find("zzz")


def test_imagenet_classes_are_the_published_list() -> None:
    digest = hashlib.sha256(IMAGENET_CLASSES.read_bytes()).hexdigest()
    assert digest == "e5a87c58a801c04986b9056e8fad5c2423ffe7b813beaa2373e061bff75b1639"
    labels = find("resnet152").labels()
    assert (labels[281].name, labels[281].id) == ("tabby", "n02123045")
    assert len({label.name for label in labels}) == 1000


def test_digit_networks_are_trained_as_they_are_served() -> None:
    from export.samples.digits import clean, network_input

    lenet5, square = find("lenet5"), clean(np.array([0]))
    assert square.shape[1:] == (lenet5.size, lenet5.size, 1)
    served = (square / 255 - lenet5.mean) / lenet5.std
    assert network_input(torch.from_numpy(square) / 255).numpy() == pytest.approx(served, abs=1e-6)


def test_help_needs_no_torch() -> None:
    code = "import sys, export.build; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
