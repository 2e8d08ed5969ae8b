"""What the tests of export/ share: a shallow network beside the catalog's, and one real build."""

import dataclasses

import pytest

from export.catalog import Network, find
from export.checkpoints.load import Loaded, load


@pytest.fixture(scope="session")
def resnet18() -> Network:
    """As resnet152 in all but depth."""
    return dataclasses.replace(
        find("resnet152"), name="resnet18", architecture="resnet:resnet18", checkpoints=()
    )


@pytest.fixture(scope="session")
def random_resnet18(resnet18: Network) -> Loaded:
    return load(resnet18, "random")


@pytest.fixture(scope="session")
def random_lenet5() -> Loaded:
    return load(find("lenet5"), "random")
