"""What the tests of export/ share: a shallow network beside the catalog's, and exported graphs."""

import dataclasses
import runpy
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock

from export.catalog import Network, find
from export.checkpoints.load import Loaded, load
from export.conversion.to_onnx import Precision, ServedNetwork, to_onnx

ROOT = Path(__file__).parents[2]
RunScript = Callable[..., str]


@pytest.fixture
def run_script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunScript:
    """Runs a command's file as Python does, in this process, which has imported torch already."""

    def run(script: str, *arguments: str) -> str:
        """Returns what it printed."""
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        monkeypatch.setattr(sys, "path", sys.path.copy())  # a script changes it
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        printed = capsys.readouterr()
        assert ended.value.code == 0, printed.err
        return printed.out

    return run


@pytest.fixture(scope="session", autouse=True)
def operators() -> Iterator[None]:
    """Torch's exporter parses the sources of its 500 operators for each graph; here, once."""
    from onnxscript._framework_apis.torch_2_5 import get_torchlib_ops

    with pytest.MonkeyPatch.context() as patch:
        seen_by_torch = "torch.onnx._internal._lazy_import.onnxscript_apis"
        patch.setattr(f"{seen_by_torch}.get_torchlib_ops", cache(get_torchlib_ops))
        yield


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
def resnet18_graphs(
    resnet18: Network, random_resnet18: Loaded, session_path: Path
) -> dict[Precision, Path]:
    return {
        precision: exported_once(resnet18, random_resnet18, precision, session_path)
        for precision in ("fp32", "fp16")
    }


@pytest.fixture(scope="session")
def lenet5_graph(random_lenet5: Loaded, session_path: Path) -> Path:
    return exported_once(find("lenet5"), random_lenet5, "fp32", session_path)


def exported_once(
    network: Network, loaded: Loaded, precision: Precision, session_path: Path
) -> Path:
    """Exports in the first worker; the others find the file."""
    path = session_path / f"{network.name}-{precision}.onnx"
    servable = ServedNetwork(loaded.network, network.mean, network.std, precision)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            to_onnx(servable, network.size, len(network.labels()), path)
    return path
