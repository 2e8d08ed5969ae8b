"""deploy/torch-cpu.sh, with real pips, venvs and indexes."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.deploy.files import ROOT

WHEEL_FACTS = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
WHEEL = "torch-2.13.0+cpu-py3-none-any.whl"


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """An index with a CPU build of torch, which needs a package that it lacks."""
    folder = tmp_path / "index" / "torch"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        about = "torch-2.13.0+cpu.dist-info"
        wheel.writestr(
            f"{about}/METADATA",
            "Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0+cpu\nRequires-Dist: nowhere\n",
        )
        wheel.writestr(f"{about}/WHEEL", WHEEL_FACTS)
        wheel.writestr(f"{about}/RECORD", "")
    handler = partial(Handler, directory=str(folder.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def install(folder: Path, index: str) -> tuple[list[str], str]:
    """Installs into a new venv; returns what is in it, and standard error."""
    venv, requirements = folder / "venv", folder / "export.txt"
    requirements.write_text("onnx==1.0\ntorch==2.13.0\n")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    pip = [sys.executable, "-m", "pip", "--isolated", "--python", str(venv / "bin" / "python")]
    done = subprocess.run(
        [ROOT / "deploy" / "torch-cpu.sh", index, requirements, *pip],
        capture_output=True,
        text=True,
        check=True,
    )
    packages = venv.glob("lib/python*/site-packages/*.dist-info")
    return [path.name for path in packages], done.stderr


def test_torch_alone_comes_from_its_index(tmp_path: Path, index: str) -> None:
    packages, _ = install(tmp_path, index)
    assert packages == ["torch-2.13.0+cpu.dist-info"]


def test_an_index_that_does_not_answer_is_left_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        index = f"http://127.0.0.1:{silent.getsockname()[1]}"
        packages, said = install(tmp_path, index)
    assert packages == []
    assert said == f"{index} does not answer within 3 s: torch comes from pip's own index\n"


def test_no_index_is_pips_own(tmp_path: Path) -> None:
    assert install(tmp_path, "") == ([], "")


def test_make_and_the_image_install_torch_alike() -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipe = (ROOT / "deploy" / "exporter.Dockerfile").read_text()
    assert 'torch-cpu.sh "$(TORCH_INDEX)"' in makefile
    assert 'torch-cpu.sh "${TORCH_INDEX}"' in recipe
    assert "extra-index-url" not in recipe
