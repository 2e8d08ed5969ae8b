import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convoy import Client
from export.errors import ParityError
from export.verify import compare_golden_images

ROOT = Path(__file__).parents[2]
Serve = Callable[..., Any]


def verify(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "convoy.cli", "verify", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def running(runner_name: str, serve: Serve, repository: Path) -> Any:
    gateway = serve(f"--repository={repository}", f"--runner={runner_name}")
    gateway.wait_until_ready()
    return gateway


def test_what_is_served_is_what_was_built(running: Any, repository: Path) -> None:
    done = verify("lenet5", "--server", running.grpc, "--repository", str(repository))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("lenet5 version 1, manifest ")
    assert "build → served, golden images" in done.stdout
    assert "ONNX fp32 → served" in done.stdout


def test_a_file_that_changed_beside_the_gateway_is_found(running: Any, repository: Path) -> None:
    (repository / "lenet5.v1" / "1" / "model.onnx").write_bytes(b"another")
    done = verify("lenet5", "--server", running.http, "--repository", str(repository))
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not the file of manifest" in done.stderr and "convoy doctor" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lenet6", "--server", "{grpc}"], "nearest: lenet5"),
        (["lenet5", "--version", "7", "--server", "{grpc}"], "lenet5 has no version '7'"),
        (["lenet5", "--server", "127.0.0.1:1"], "127.0.0.1:1"),
        (
            ["lenet5", "--server", "{grpc}", "--repository", "/nowhere"],
            "There is no /nowhere/lenet",
        ),
    ],
)
def test_failure_is_one_sentence(arguments: list[str], message: str, lenet_gateway: Any) -> None:
    done = verify(*(argument.format(grpc=lenet_gateway.grpc) for argument in arguments))
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("change", ["score", "label"])
def test_a_golden_image_that_is_answered_otherwise_is_named(
    change: str, lenet_gateway: Any
) -> None:
    with Client(lenet_gateway.grpc) as client:
        model = client.model("lenet5")
        assert compare_golden_images(client, model).images == len(model.golden_images)
        expected = model.golden_images[0].expected[0]
        if change == "score":
            expected.score -= 0.1
        else:
            expected.label = "another"
        with pytest.raises(
            ParityError, match=r"Golden image held-out digit .* of lenet5 version 1"
        ):
            compare_golden_images(client, model)
