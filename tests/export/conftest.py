"""What the tests of export/ share: a shallow network beside the catalog's, and one real build."""

import dataclasses
from pathlib import Path

import pytest

from export.build import run
from export.catalog import Network, find
from export.checkpoints.load import Loaded, load
from export.console import PublishedVersion
from export.options import Options


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


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> PublishedVersion:
    """lenet5 with random weights, in a repository of its own."""
    repository: Path = tmp_path_factory.mktemp("repository")
    return run(Options(find("lenet5"), "fp32", "random", 0, repository))
