"""Workers on the same ports, on the real wire: they stand for one gateway."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import tritonclient.http

from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc
from tests.loopback import free_port, wait_for
from tests.server.open_inference.clients import image_input

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux shares ports evenly")

Serve = Callable[..., Any]
CLASSIFY = "/v1/models/lenet5:classify"
MAX_CONNECTIONS = 12


HEAVY = {"server.gateway", "server.pipeline", "numpy", "onnxruntime", "PIL", "tritonclient"}
# The first before it starts the workers; they import gateways while it imports the second.
IMPORTED = {"server.workers.supervisor": HEAVY | {"httpx"}, "server.workers.admin": HEAVY}


@pytest.mark.parametrize(("module", "unwanted"), IMPORTED.items())
def test_the_supervisor_imports_nothing_of_what_computes(module: str, unwanted: set[str]) -> None:
    command = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    )
    assert not unwanted & set(done.stdout.split())


def lines_of(name: str, rest: str = "") -> str:
    return f'[{name}]\nsha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n{rest}\n'


@pytest.fixture(scope="module")
def keys_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    rate = "requests_per_s = 0.001\nburst = 6"
    path.write_text(lines_of("free") + lines_of("spread", rate) + lines_of("single", rate))
    return path


@pytest.fixture(scope="module")
def repository_of_pair(tmp_path_factory: pytest.TempPathFactory, shipped_lenet5: Path) -> Path:
    path = tmp_path_factory.mktemp("repository")
    shutil.copytree(shipped_lenet5, path / shipped_lenet5.name)
    return path


@pytest.fixture(scope="module")
def pair(serve_together: Serve, repository_of_pair: Path, keys_path: Path) -> Any:
    """A gateway of two workers, with keys."""
    gateway = serve_together(
        f"--repository={repository_of_pair}",
        "--models=lenet5",
        "--workers=2",
        f"--api-keys={keys_path}",
    )
    wait_until_all_serve(gateway)
    return gateway


@pytest.fixture(scope="module")
def keyless(serve_together: Serve, shipped_lenet5: Path) -> Any:
    """Another gateway of two workers."""
    options = ["--models=lenet5", "--workers=2", f"--max-connections={MAX_CONNECTIONS}"]
    gateway = serve_together(f"--repository={shipped_lenet5.parent}", *options)
    wait_until_all_serve(gateway)
    return gateway


@pytest.fixture(scope="module")
def impatient(serve_together: Serve, shipped_lenet5: Path) -> Any:
    """Another one, which notices soon that a worker is silent."""
    options = ["--models=lenet5", "--workers=2", "--worker-timeout-s=6"]
    port = f"--http-address=127.0.0.1:{free_port()}"
    gateway = serve_together(f"--repository={shipped_lenet5.parent}", *options, port)
    wait_until_all_serve(gateway)
    return gateway


def status(gateway: Any) -> dict[str, Any]:
    answer = httpx.get(
        f"{gateway.admin}/statusz", timeout=60, headers={"accept": "application/json"}
    )
    facts: dict[str, Any] = answer.raise_for_status().json()
    return facts


def workers(gateway: Any) -> list[dict[str, Any]]:
    return [worker for worker in status(gateway)["workers"] if worker["is_listening"]]


def workers_of(supervisor: int) -> list[int]:
    """The processes that multiprocessing has started."""
    pids = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return [int(pid) for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def wait_until_all_serve(gateway: Any) -> None:
    gateway.wait_for(lambda: len(workers(gateway)) == 2)
    gateway.wait_for(lambda: httpx.get(f"{gateway.admin}/readyz", timeout=60).status_code == 200)


def sockets(pid: int) -> int:
    """An idle worker has some ten."""
    links = Path(f"/proc/{pid}/fd").iterdir()
    return sum(str(link.readlink()).startswith("socket:") for link in links)


def ask(gateway: Any, image: bytes, key: str = "free", client: Any = httpx) -> int:
    """Returns the status; each call of httpx is a connection of its own."""
    headers = {"authorization": f"Bearer {key}"}
    url = f"{gateway.http}{CLASSIFY}"
    answer = client.post(url, content=image, headers=headers, timeout=60)
    status: int = answer.status_code
    return status


def counted(gateway: Any) -> float:
    """Answered requests, of all workers since the start."""
    metrics = httpx.get(f"{gateway.admin}/metrics", timeout=60).text
    return sum(
        float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if line.startswith("convoy_requests_total") and 'reason="OK"' in line
    )


@pytest.fixture
def held_connections(pair: Any) -> Iterator[list[socket.socket]]:
    """Thirty to each API, which the kernel gives to both workers."""
    ports = [int(address.rpartition(":")[2]) for address in (pair.http, pair.grpc)]
    held = [socket.create_connection(("127.0.0.1", port)) for port in ports * 30]
    yield held
    for connection in held:
        connection.close()


def test_both_accept_connections(pair: Any, held_connections: list[socket.socket]) -> None:
    pair.wait_for(lambda: all(sockets(worker["process"]) > 20 for worker in workers(pair)))


def test_requests_are_counted_for_all_on_both_wires(pair: Any, digit: bytes) -> None:
    before = counted(pair)
    assert [ask(pair, digit) for _ in range(10)] == [200] * 10
    request = pb.ClassifyRequest(model="lenet5", image=pb.Image(content=digit))
    for _ in range(10):
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(pair.grpc, options=options) as channel:
            stub = classifier_pb2_grpc.ImageClassifierStub(channel)
            metadata = (("authorization", "Bearer free"),)
            assert stub.Classify(request, metadata=metadata).classes[0].label == "7"
    pair.wait_for(lambda: counted(pair) == before + 20)
    assert sum(model["requests"] for model in status(pair)["traffic"]) >= before + 20
    text = httpx.get(f"{pair.admin}/statusz", timeout=60).text
    assert "WORKERS" in text


@pytest.mark.parametrize("key", ["spread", "single"])
def test_a_key_has_its_rate_once_and_one_connection_may_use_all_of_it(
    pair: Any, digit: bytes, key: str
) -> None:
    with httpx.Client() as one_connection:
        client = one_connection if key == "single" else httpx
        statuses = Counter(ask(pair, digit, key, client) for _ in range(16))
    assert statuses == {200: 6, 429: 10}


def test_a_killed_worker_is_replaced_and_nobody_else_notices(pair: Any, digit: bytes) -> None:
    before, restarts = counted(pair), sum(worker["restarts"] for worker in workers(pair))
    victim, other = (worker["process"] for worker in workers(pair))
    os.kill(victim, signal.SIGKILL)
    pair.wait_for(lambda: len(workers(pair)) == 1)
    assert [ask(pair, digit) for _ in range(10)] == [200] * 10
    wait_until_all_serve(pair)
    assert [ask(pair, digit) for _ in range(10)] == [200] * 10
    pids = {worker["process"] for worker in workers(pair)}
    assert other in pids and victim not in pids
    assert sum(worker["restarts"] for worker in workers(pair)) == restarts + 1
    assert counted(pair) == before + 20
    metrics = httpx.get(f"{pair.admin}/metrics", timeout=60).text
    assert "convoy_workers 2.0" in metrics
    assert f"convoy_worker_restarts_total {restarts + 1:.1f}" in metrics
    assert "was ended by signal 9" in pair.log()


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("api", ["http", "grpc"])
def test_a_second_gateway_is_refused_their_ports(
    pair: Any, shipped_lenet5: Path, api: str, n: int
) -> None:
    address = getattr(pair, api).removeprefix("http://")
    ports = [f"--{name}-address=127.0.0.1:0" for name in ("http", "grpc", "metrics") if name != api]
    command = [sys.executable, "-m", "convoy.cli", "serve", *ports, f"--{api}-address={address}"]
    options = [f"--workers={n}", f"--repository={shipped_lenet5.parent}"]
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, timeout=60, check=False
    )
    (line,) = done.stderr.strip().splitlines()
    assert done.returncode == 1
    assert line.startswith(f"convoy serve: --{api}-address {address} is not available")


def test_sighup_reaches_all(pair: Any, digit: bytes, keys_path: Path) -> None:
    keys_path.write_text(keys_path.read_text() + lines_of("new"))
    assert ask(pair, digit, "new") == 401
    pair.process.send_signal(signal.SIGHUP)
    pair.wait_for(lambda: pair.log().count("4 keys") == 2)
    assert [ask(pair, digit, "new") for _ in range(20)] == [200] * 20


def test_a_new_version_takes_over_in_all(pair: Any, digit: bytes, repository_of_pair: Path) -> None:
    staging = repository_of_pair / "lenet5.v2.staging"
    shutil.copytree(repository_of_pair / "lenet5.v1", staging)
    staging.rename(repository_of_pair / "lenet5.v2")
    url, headers = f"{pair.http}{CLASSIFY}", {"authorization": "Bearer free"}

    def versions() -> set[str]:
        answers = [httpx.post(url, content=digit, headers=headers) for _ in range(10)]
        return {answer.json()["version"] for answer in answers}

    pair.wait_for(lambda: versions() == {"2"})
    newest = next(model for model in status(pair)["models"] if model["version"] == "2")
    assert (newest["state"], newest["is_default"]) == ("READY", True)


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_each_worker_tells_the_status_and_the_statistics_of_all(keyless: Any, digit: bytes) -> None:
    address = keyless.http.removeprefix("http://")
    for _ in range(10):
        with tritonclient.http.InferenceServerClient(address) as client:
            client.infer("lenet5", image_input(client, digit))

    def counts() -> tuple[int, int]:
        (stats,) = httpx.get(f"{keyless.http}/v2/models/stats").json()["model_stats"]
        (traffic,) = httpx.get(f"{keyless.http}/v1/status").json()["traffic"]
        return stats["inference_stats"]["success"]["count"], traffic["requests"]

    keyless.wait_for(lambda: counts() == (10, 10))
    assert [counts() for _ in range(10)] == [(10, 10)] * 10


def test_connections_are_bounded_for_all_together(keyless: Any) -> None:
    address = "127.0.0.1", int(keyless.http.rpartition(":")[2])

    def refused() -> int:
        """Of three connections beyond the bound; those of other tests may still be closing."""
        with ExitStack() as held:
            for _ in range(MAX_CONNECTIONS):
                client = held.enter_context(socket.create_connection(address))
                client.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
                with suppress(ConnectionResetError):
                    client.recv(1)  # it is counted
            further = [held.enter_context(socket.create_connection(address, 5)) for _ in range(3)]
            return sum(client.recv(12) == b"HTTP/1.1 503" for client in further)

    keyless.wait_for(lambda: refused() == 3)
    keyless.wait_for(lambda: httpx.get(f"{keyless.http}/livez").status_code == 200)


def test_sigterm_drains_all_and_fails_no_request(keyless: Any, slow_digit: bytes) -> None:
    gateway = keyless
    pids = [worker["process"] for worker in workers(gateway)]
    before = accepted(gateway)
    outcomes: list[int] = []

    def ask_slowly() -> None:
        outcomes.append(ask(gateway, slow_digit))

    threads = [threading.Thread(target=ask_slowly) for _ in range(10)]
    for thread in threads:
        thread.start()
    gateway.wait_for(lambda: accepted(gateway) == before + 10)
    assert gateway.stop() == 0
    for thread in threads:
        thread.join()
    assert outcomes == [200] * 10
    assert not any(map(is_running, pids))


def accepted(gateway: Any) -> float:
    metrics = httpx.get(f"{gateway.admin}/metrics", timeout=60).text
    return sum(
        float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if line.startswith(("convoy_in_flight ", "convoy_requests_total"))
    )


def test_a_worker_that_does_not_answer_is_replaced(impatient: Any, digit: bytes) -> None:
    silent = workers(impatient)[0]["process"]
    os.kill(silent, signal.SIGSTOP)
    impatient.wait_for(lambda: not is_running(silent))
    wait_until_all_serve(impatient)
    assert "has stood still for 6 s" in impatient.log()
    assert [ask(impatient, digit) for _ in range(10)] == [200] * 10


def test_a_worker_that_does_not_get_as_far_as_listening_is_replaced(impatient: Any) -> None:
    known = set(workers_of(impatient.process.pid))
    os.kill(max(known), signal.SIGKILL)
    impatient.wait_for(lambda: bool(set(workers_of(impatient.process.pid)) - known))
    (replacement,) = set(workers_of(impatient.process.pid)) - known
    os.kill(replacement, signal.SIGSTOP)
    impatient.wait_for(lambda: not is_running(replacement))
    wait_until_all_serve(impatient)
    assert "has stood still for 12 s" in impatient.log()


def test_without_their_supervisor_workers_drain_and_leave_the_ports(impatient: Any) -> None:
    pids = [worker["process"] for worker in workers(impatient)]
    impatient.process.kill()
    deadline_s = time.monotonic() + 60
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{impatient.http}/livez")


def test_none_is_ready_before_all_are(shipped_lenet5: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "convoy.cli", "serve", "--workers=2", "--log-level=error"]
    command += [f"--{api}-address=127.0.0.1:0" for api in ("grpc", "metrics")]
    command += [f"--http-address=127.0.0.1:{port}", f"--repository={shipped_lenet5.parent}"]

    def get(path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{port}{path}")

    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as supervisor:
        try:
            wait_for(lambda: len(workers_of(supervisor.pid)) == 2)
            late = workers_of(supervisor.pid)[1]
            os.kill(late, signal.SIGSTOP)
            wait_for(lambda: get("/v1/models/lenet5").json()["state"] == "STATE_READY")
            assert get("/readyz").status_code == 503, "half of the connections come to the late one"
            os.kill(late, signal.SIGCONT)
            wait_for(lambda: get("/readyz").status_code == 200)
        finally:
            supervisor.terminate()


def test_a_worker_that_cannot_start_ends_all_with_its_reason(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "convoy.cli", "serve", "--workers=2"]
    command += [f"--{api}-address=127.0.0.1:0" for api in ("http", "grpc", "metrics")]
    command.append(f"--repository={tmp_path / 'nowhere'}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    (line,) = done.stderr.strip().splitlines()
    assert done.returncode == 1
    assert line.startswith("convoy serve: there is no model repository at")
