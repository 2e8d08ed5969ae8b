"""Real things for the tests: repositories, gateways in processes of their own, clients on the wire.

What takes long to build or start is made once per session and shared: no test may change it.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import certifi
import httpx
import pytest
import trustme
from filelock import FileLock
from google.protobuf import json_format, text_format
from PIL import Image
from tritonclient.grpc import model_config_pb2

from convoy.v1 import classifier_pb2 as pb
from export.build import run
from export.catalog import find
from export.console import PublishedVersion
from export.options import Options
from server.errors import TritonCannotStart
from server.runners.triton_local import TritonLocalRunner
from server.runners.tritonserver_wheel import install
from server.settings import default_cache_path
from tests.loopback import holds
from tests.preloaded import ForkedProcess, fork_gateway

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data"
RUNNERS = ("in-process", "triton-local")
SLOW_TIMEOUT_S = 3600  # the first slow test of a file may build all networks


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--nothing-skipped",
        action="store_true",
        help="fail if a test was skipped: for CI, which installs all that the tests need",
    )


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:  # the controller checks, to which all workers report
        return
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--nothing-skipped") and reporter.stats.get("skipped"):
        reporter.write_line("tests were skipped, and --nothing-skipped was given", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Makes each file a group, which runs on one worker, unless the file names its group; gives
    slow tests more time.
    """
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_S))
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(f"{item.path.parent.name}/{item.path.stem}"))


@pytest.fixture(scope="session")
def session_path(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Returns a folder that all workers of a run share."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session", autouse=True)
def build_cache(session_path: Path) -> None:
    """Shares a build cache within a run; the installed Triton is shared between runs."""
    os.environ["CONVOY_CACHE"] = str(default_cache_path())
    os.environ["XDG_CACHE_HOME"] = str(session_path / "cache")


@pytest.fixture(scope="session", autouse=True)
def few_authorities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """In place of all public ones: httpx reads them for each `httpx.get`, which takes 20 ms, and
    the tests ask nobody whom one of them would vouch for.
    """
    path = tmp_path_factory.mktemp("authorities") / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certifi, "where", lambda: str(path))
        yield


# ---------------------------------------------------------------- repositories


@pytest.fixture(scope="session")
def shipped_lenet5() -> Path:
    """The folder of the trained LeNet-5 that ships."""
    return ROOT / "model_repository" / "lenet5.v1"


@pytest.fixture
def repository(tmp_path: Path, shipped_lenet5: Path) -> Path:
    """A repository with LeNet-5, which the test may change."""
    path = tmp_path / "model_repository"
    shutil.copytree(shipped_lenet5, path / shipped_lenet5.name)
    return path


EditFacts = Callable[[Path, Callable[[pb.Model], None]], None]


@pytest.fixture(scope="session")
def edit_facts() -> EditFacts:
    """Returns a function that changes the facts in the config.pbtxt of a version's folder."""

    def edit(version_path: Path, change: Callable[[pb.Model], None]) -> None:
        config_path = version_path / "config.pbtxt"
        config = text_format.Parse(config_path.read_text(), model_config_pb2.ModelConfig())
        parameter = config.parameters["convoy.v1.Model"]
        facts = json_format.Parse(parameter.string_value, pb.Model())
        change(facts)
        parameter.string_value = json_format.MessageToJson(facts)
        config_path.write_text(text_format.MessageToString(config))

    return edit


@pytest.fixture(scope="session")
def large_repository(
    session_path: Path, shipped_lenet5: Path, built_resnet18: PublishedVersion
) -> Path:
    """LeNet-5, and ResNet-18 with random weights in fp32."""
    path = session_path / "large" / "model_repository"
    with FileLock(session_path / "large.lock"):  # the first worker copies
        for folder in (shipped_lenet5, built_resnet18.folder):
            if not (path / folder.name).exists():
                shutil.copytree(folder, path / folder.name)
    return path


@pytest.fixture(scope="session")
def built(session_path: Path) -> PublishedVersion:
    """LeNet-5 with random weights, alone in a repository."""
    return build_once("lenet5", session_path)


@pytest.fixture(scope="session")
def built_nin(session_path: Path) -> PublishedVersion:
    """NIN for CIFAR-10, a small network for colour photos, with random weights."""
    return build_once("nin_cifar10", session_path)


@pytest.fixture(scope="session")
def built_resnet18(session_path: Path) -> PublishedVersion:
    """ResNet-18, for photos of ImageNet's size, with random weights."""
    return build_once("resnet18", session_path)


def build_once(name: str, session_path: Path) -> PublishedVersion:
    """Builds in the first worker; the others find the version published."""
    options = Options(find(name), "fp32", "random", 0, session_path / "built" / name)
    with FileLock(session_path / f"{name}.lock"):
        return run(options)


# ---------------------------------------------------------------- runners and gateways


@pytest.fixture(scope="session")
def tritonserver() -> Path:
    """The folder of the wheel's server; tests that need it are skipped where it is unavailable."""
    try:
        return install(Path(os.environ["CONVOY_CACHE"]))
    except TritonCannotStart as error:
        pytest.skip(f"needs the tritonserver wheel: {error}")


@pytest.fixture(params=RUNNERS)
def runner_name(request: pytest.FixtureRequest) -> str:
    """Each runner in turn; a test is skipped where its runner is unavailable."""
    return need_runner(request, request.param)


def need_runner(request: pytest.FixtureRequest, name: str) -> str:
    if name == "triton-local":
        request.getfixturevalue("tritonserver")
    return name


class TritonAtAddress(TritonLocalRunner):
    """A tritonserver at a given address, on the machine that a command enters."""

    def __init__(self, repository: Path, address: str, enter: Sequence[str]) -> None:
        super().__init__(repository, cache_path=Path(os.environ["CONVOY_CACHE"]))
        self.address = address or self.address
        self._enter = enter

    def _command_line(self, server_path: Path, backends_path: Path) -> list[str]:
        return [*self._enter, *super()._command_line(server_path, backends_path)]


@contextlib.contextmanager
def running_triton(
    repository: Path, address: str = "", enter: Sequence[str] = ()
) -> Iterator[TritonLocalRunner]:
    """Runs a tritonserver that belongs to no gateway; it is restarted when it dies."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = TritonAtAddress(repository, address, enter)
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(60)
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.contextmanager
def triton_address(repository: Path) -> Iterator[str]:
    with running_triton(repository) as server:
        yield server.address


StartTriton = Callable[[Path], contextlib.AbstractContextManager[str]]
StartTritonAt = Callable[..., contextlib.AbstractContextManager[TritonLocalRunner]]


@pytest.fixture(scope="session")
def start_triton(tritonserver: Path) -> StartTriton:
    """Starts a tritonserver on a repository, and returns its HOST:PORT."""
    return triton_address


@pytest.fixture(scope="session")
def start_triton_at(tritonserver: Path) -> StartTritonAt:
    """Starts a tritonserver on a repository at an address, on the machine that a command enters."""
    return running_triton


@dataclass
class RunningGateway:
    """A process of `convoy serve`."""

    process: subprocess.Popen[str] | ForkedProcess
    http: str  # http://HOST:PORT
    grpc: str  # HOST:PORT
    admin: str  # http://HOST:PORT
    log_path: Path

    def wait_until_ready(self, timeout_s: float = 120.0) -> None:
        self.wait_for(lambda: httpx.get(f"{self.http}/readyz").status_code == 200, timeout_s)

    def wait_for(self, is_so: Callable[[], bool], timeout_s: float = 60.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not holds(is_so):
            assert self.process.poll() is None, f"the gateway ended:\n{self.log()}"
            assert time.monotonic() < deadline_s, f"not so after {timeout_s} s:\n{self.log()}"
            time.sleep(0.05)

    def log(self) -> str:
        """Returns the log once it stops growing, or after a second: under load it never stops.

        A thread of the gateway writes the lines a moment after what they are about.
        """
        before, text = "", self.log_path.read_text()
        deadline_s = time.monotonic() + 1
        while text != before and time.monotonic() < deadline_s:
            time.sleep(0.1)
            before, text = text, self.log_path.read_text()
        return text

    def stop(self, timeout_s: float = 60.0) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


@contextlib.contextmanager
def serving(
    log_path: Path,
    *arguments: str,
    environment: dict[str, str] | None = None,
    is_forked: bool = sys.platform == "linux",
) -> Iterator[RunningGateway]:
    """Runs a gateway on free ports, and stops it at the end.

    It is not forked, but run as users do, with variables of its own, which may be read by what is
    imported, and where a test is about the start.
    """
    ports = [f"--{api}-address=127.0.0.1:0" for api in ("http", "grpc", "metrics")]
    arguments = (*ports, *arguments)
    with log_path.open("w") as log:
        if is_forked and not environment:
            process: subprocess.Popen[str] | ForkedProcess = fork_gateway(arguments, log)
        else:
            process = run_gateway(arguments, log, environment or {})
    try:
        yield RunningGateway(process, *read_addresses(process, log_path), log_path)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()
            process.wait()
            assert process.stdout
            process.stdout.close()


def run_gateway(
    arguments: Sequence[str], log: TextIO, environment: dict[str, str]
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "convoy.cli", "serve", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={**os.environ, **environment},
    )


def read_addresses(
    process: subprocess.Popen[str] | ForkedProcess, log_path: Path
) -> tuple[str, str, str]:
    assert process.stdout
    banner = ""
    for line in process.stdout:
        banner += line
        if "/metrics" in line:
            break
    found = [re.search(rf"{api} +(\S+)", banner) for api in ("HTTP", "gRPC", "admin")]
    assert all(found), f"no addresses in:\n{banner}\n{log_path.read_text()}"
    http, grpc, admin = (match[1] for match in found if match)
    return http, grpc, admin.removesuffix("/metrics")


Serve = Callable[..., RunningGateway]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts gateways with the given options; they end with the test."""
    with contextlib.ExitStack() as running:

        def start(*arguments: str, **options: Any) -> RunningGateway:
            log_path = tmp_path / f"gateway-{time.monotonic_ns()}.log"
            return running.enter_context(serving(log_path, *arguments, **options))

        yield start


@pytest.fixture(scope="module")
def serve_together(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Like `serve`, for gateways that the tests of a file share."""
    with contextlib.ExitStack() as running:

        def start(*arguments: str, **options: Any) -> RunningGateway:
            log_path = tmp_path_factory.mktemp("shared") / "gateway.log"
            return running.enter_context(serving(log_path, *arguments, **options))

        yield start


@pytest.fixture(scope="session", params=RUNNERS)
def gateway(
    request: pytest.FixtureRequest, large_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    """A gateway with LeNet-5 and ResNet-18 on each runner, started once and shared."""
    need_runner(request, request.param)
    log_path = tmp_path_factory.mktemp(request.param) / "gateway.log"
    options = [f"--repository={large_repository}", f"--runner={request.param}"]
    with serving(log_path, *options) as running:
        running.wait_until_ready(300)
        yield running


@pytest.fixture(scope="session")
def lenet_gateway(
    shipped_lenet5: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    """A gateway with LeNet-5 alone, in process, started once and shared."""
    log_path = tmp_path_factory.mktemp("lenet") / "gateway.log"
    options = [
        f"--repository={shipped_lenet5.parent}",
        "--models=lenet5",
        "--max-image-pixels=1000000",
    ]
    with serving(log_path, *options) as running:
        running.wait_until_ready()
        yield running


@pytest.fixture(scope="session")
def shipped_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """The gateway that `make serve` starts: with all shipped models."""
    log_path = tmp_path_factory.mktemp("shipped") / "gateway.log"
    with serving(log_path, is_forked=False) as running:
        running.wait_until_ready()
        yield running


@pytest.fixture(scope="session")
def digit() -> bytes:
    """A photographed seven."""
    return (DATA / "digit-7.png").read_bytes()


@pytest.fixture(scope="session")
def slow_digit(digit: bytes) -> bytes:
    """That seven as a transparent megapixel: 7 kB that take some 50 ms to prepare."""
    with Image.open(io.BytesIO(digit)) as photo:
        seven = photo.convert("L").point([0] * 128 + [255] * 128)
    file = io.BytesIO()
    seven.resize((1000, 1000), Image.Resampling.NEAREST).convert("RGBA").save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def photos() -> dict[str, bytes]:
    """Two natural photos, JPEG files of 640x427, which scikit-learn carries."""
    import sklearn.datasets

    folder = Path(sklearn.datasets.__file__).parent / "images"
    return {name: (folder / name).read_bytes() for name in ("china.jpg", "flower.jpg")}
