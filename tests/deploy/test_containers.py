"""Images, compose file and stack on real engines: `make container-test`.

Needs Docker 25 or newer with Compose on this machine, at DOCKER_HOST. PYTHON_IMAGE,
EXPORT_BASE_IMAGE and TORCH_INDEX say where builds download from (.env.example). The stack needs
three more engines: see SWARM_HOSTS, SWARM_CLIENT, SWARM_CUT and SWARM_MEND below.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from convoy import Client, errors
from tests.deploy.conftest import Measured
from tests.deploy.engine import Deployment, docker, run
from tests.deploy.files import ROOT, clean_environment
from tests.end_to_end.load import load
from tests.loopback import answers, wait_for
from tests.server.network.test_tls import issue

pytestmark = pytest.mark.container

DIGIT = ROOT / "tests" / "data" / "digit-7.png"
GATEWAY_IMAGE, EXPORT_IMAGE = "convoy-gateway", "convoy-exporter"
TRITON_STANDIN, PROMETHEUS_STANDIN = "convoy-triton-standin", "convoy-prometheus-standin"
# Without its base image.
MAX_GATEWAY_BYTES = 165e6
WRITE = "open('/opt/venv/x', 'w')"


@pytest.fixture(scope="module")
def gateway_image() -> str:
    docker("compose", "--env-file", "/dev/null", "build", "--quiet", "gateway", timeout_s=1800)
    return GATEWAY_IMAGE


@pytest.fixture(scope="module")
def triton_standin() -> str:
    return build_standin("triton", TRITON_STANDIN)


@pytest.fixture(scope="module")
def prometheus_standin() -> str:
    return build_standin("prometheus", PROMETHEUS_STANDIN)


def build_standin(name: str, tag: str) -> str:
    recipe = f"tests/deploy/standins/{name}.Dockerfile"
    docker("build", "--quiet", "--file", recipe, "--tag", tag, ".", timeout_s=1800)
    return tag


@contextlib.contextmanager
def deployed(folder: Path, *services: str, **settings: str) -> Iterator[Deployment]:
    deployment = Deployment(folder, settings)
    try:
        deployment.up(*services)
        yield deployment
    except AssertionError:
        print(deployment.compose("logs", "--tail", "40"))
        raise
    finally:
        deployment.down()


# ---------------------------------------------------------------- the gateway alone


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, gateway_image: str) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("alone")) as deployment:
        yield deployment


def test_without_settings_a_digit_is_read_over_both_wires(alone: Deployment) -> None:
    assert labels(alone) == ["7", "7"]
    with Client(alone.grpc) as client:
        assert client.classify(DIGIT, model="lenet5").runtime.startswith("onnxruntime")
        shipped = (ROOT / "model_repository").glob("*.v1")
        assert {one.name for one in client.models()} >= {path.stem for path in shipped}


def labels(deployment: Deployment, **options: Any) -> list[str]:
    answers = []
    for server in (deployment.grpc, deployment.http):
        with Client(server, **options) as client:
            answers.append(client.classify(DIGIT, model="lenet5").best.label)
    return answers


def test_the_gateway_is_unprivileged_and_can_write_nothing(alone: Deployment) -> None:
    facts = alone.container("gateway")
    assert facts["HostConfig"]["ReadonlyRootfs"] and not facts["HostConfig"]["Privileged"]
    status = alone.compose("exec", "gateway", "cat", "/proc/1/status")
    fields = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["10001"] * 4
    assert int(fields["CapEff"], 16) == 0 and fields["NoNewPrivs"] == "1"
    with pytest.raises(AssertionError, match="Read-only file system"):
        alone.compose("exec", "--user", "0", "gateway", "python", "-c", WRITE)
    with pytest.raises(AssertionError, match="Read-only file system"):
        alone.compose("exec", "--user", "0", "gateway", "touch", "/models/x")


def test_the_gateways_image_is_small(gateway_image: str, measured: Measured) -> None:
    base = os.environ.get("PYTHON_IMAGE", "python:3.11-slim-bookworm")
    sizes = docker("image", "inspect", "--format", "{{.Size}}", gateway_image, base).split()
    whole_bytes, base_bytes = map(int, sizes)
    measured("gateway image, MB", round(whole_bytes / 1e6))
    measured("the same without its base image, MB", round((whole_bytes - base_bytes) / 1e6))
    assert whole_bytes - base_bytes < MAX_GATEWAY_BYTES
    words = ["run", "--rm", "--entrypoint", "python", gateway_image, "-c"]
    with pytest.raises(AssertionError, match="No module named 'torch'"):
        docker(*words, "import torch")


def test_without_keys_the_image_alone_does_not_start(gateway_image: str) -> None:
    with pytest.raises(AssertionError, match="--api-keys"):
        docker("run", "--rm", gateway_image)


def test_the_image_alone_has_the_digit_networks(gateway_image: str) -> None:
    words = ["run", "--rm", "--entrypoint", "convoy", gateway_image, "doctor"]
    assert docker(*words).startswith("6 versions, nothing wrong")


def test_a_killed_gateway_comes_back(alone: Deployment, measured: Measured) -> None:
    restarts = alone.kill("gateway")
    seconds = wait_for(lambda: answers(f"{alone.http}/readyz"))
    measured("killed gateway ready again, s", round(seconds, 1))
    assert alone.container("gateway")["RestartCount"] == restarts + 1
    assert labels(alone) == ["7", "7"]


def test_stopping_loses_nothing_that_was_accepted(alone: Deployment) -> None:
    seen: list[str] = []
    with Client(alone.http) as client:
        asking = threading.Thread(target=ask_until_refused, args=(client, seen))
        asking.start()
        time.sleep(1)
        alone.compose("stop", "gateway")
        asking.join()
    assert set(seen[:-1]) == {"7"}
    assert alone.container("gateway")["State"]["ExitCode"] == 0
    alone.up()


def ask_until_refused(client: Client, seen: list[str]) -> None:
    try:
        while True:
            seen.append(client.classify(DIGIT, model="lenet5").best.label)
    except errors.Unavailable as error:
        seen.append(str(error))


# ---------------------------------------------------------------- TLS, and keys


def test_both_apis_speak_tls(tmp_path: Path, gateway_image: str) -> None:
    files = issue(tmp_path)
    settings = {
        "COMPOSE_FILE": f"{ROOT}/docker-compose.yml:{ROOT}/deploy/tls.yml",
        "TLS_CERTIFICATE_FILE": str(files.certificate),
        "TLS_KEY_FILE": str(files.key),
        "GATEWAY_USER": f"{os.getuid()}:{os.getgid()}",
    }
    with deployed(tmp_path, **settings) as deployment:
        for scheme, port in (("https", "HTTP_PORT"), ("grpcs", "GRPC_PORT")):
            server = f"{scheme}://localhost:{deployment.settings[port]}"
            with Client(server, ca=files.ca) as client:
                assert client.classify(DIGIT, model="lenet5").best.label == "7"
        with pytest.raises(errors.ConvoyError):
            labels(deployment)


def test_keys_are_asked_for_and_read_again(tmp_path: Path, gateway_image: str) -> None:
    keys = tmp_path / "keys.toml"
    alice = new_key("alice", keys)
    files = f"{ROOT}/docker-compose.yml:{ROOT}/deploy/keys.yml"
    user = f"{os.getuid()}:{os.getgid()}"
    settings = {"COMPOSE_FILE": files, "API_KEYS_FILE": str(keys), "GATEWAY_USER": user}
    with deployed(tmp_path, **settings) as deployment:
        with pytest.raises(errors.ConvoyError, match="key"):
            labels(deployment, api_key="")
        assert labels(deployment, api_key=alice) == ["7", "7"]
        bob = new_key("bob", keys)
        deployment.compose("kill", "--signal", "HUP", "gateway")
        time.sleep(1)
        assert labels(deployment, api_key=bob) == ["7", "7"]


def new_key(name: str, keys: Path) -> str:
    command = [str(Path(sys.executable).with_name("convoy")), "key", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    with keys.open("a") as file:
        file.write(done.stdout)
    return done.stderr.split()[-1]


# ---------------------------------------------------------------- in front of a Triton


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose owner is neither root nor the gateway."""
    path = tmp_path_factory.mktemp("models") / "model_repository"
    shutil.copytree(ROOT / "model_repository" / "lenet5.v1", path / "lenet5.v1")
    for entry in [path, *path.rglob("*")]:
        os.chown(entry, 4321, 8765)
    path.parent.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def with_triton(
    tmp_path_factory: pytest.TempPathFactory,
    gateway_image: str,
    triton_standin: str,
    prometheus_standin: str,
    repository: Path,
) -> Iterator[Deployment]:
    settings = {
        "COMPOSE_PROFILES": "triton,observe",
        "CONVOY_TRITON": "triton:8001",
        "TRITON_IMAGE": triton_standin,
        "PROMETHEUS_IMAGE": prometheus_standin,
        "MODEL_REPOSITORY": str(repository),
    }
    # All but Grafana, whose image is available from a registry alone.
    services = ("gateway", "triton", "prometheus")
    with deployed(tmp_path_factory.mktemp("triton"), *services, **settings) as deployment:
        yield deployment


def test_behind_the_gateway_a_triton_reads_the_digit(with_triton: Deployment) -> None:
    assert labels(with_triton) == ["7", "7"]
    with Client(with_triton.grpc) as client:
        assert client.classify(DIGIT, model="lenet5").runtime == "triton onnxruntime"


def test_triton_is_unprivileged_and_not_published(with_triton: Deployment) -> None:
    status = with_triton.compose("exec", "triton", "cat", "/proc/1/status")
    fields = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["1000"] * 4 and int(fields["CapEff"], 16) == 0
    assert with_triton.container("triton")["HostConfig"]["PortBindings"] == {}


@pytest.mark.parametrize("service", ["triton", "gateway"])
def test_what_is_killed_under_load_comes_back(
    service: str, with_triton: Deployment, measured: Measured
) -> None:
    with load(with_triton, DIGIT.read_bytes()) as running:
        killed_s = time.monotonic()
        restarts = with_triton.kill(service)
        wait_for(lambda: with_triton.container(service)["RestartCount"] > restarts)
        wait_for(lambda: running.is_served(time.monotonic() - 3), 120)
    measured(f"{service} killed under load", dict(running.counts()))
    measured(f"{service} killed, answers again after s", round(running.back_after_s(killed_s), 1))
    # Clients see that it is unavailable, and no other error.
    allowed = {"RUNNER_UNAVAILABLE", "MODEL_NOT_READY", "Unavailable", "UNAVAILABLE"}
    assert running.seen() <= allowed, running.counts()
    assert labels(with_triton) == ["7", "7"]


def test_prometheus_sees_both(with_triton: Deployment) -> None:
    port = with_triton.settings["PROMETHEUS_PORT"]

    def up() -> dict[str, str]:
        url = f"http://127.0.0.1:{port}/api/v1/query"
        found = httpx.get(url, params={"query": "up"}).json()["data"]["result"]
        return {one["metric"]["job"]: one["value"][1] for one in found}

    wait_for(lambda: up() == {"gateway": "1", "triton": "1"})
    rules = httpx.get(f"http://127.0.0.1:{port}/api/v1/rules").json()["data"]["groups"]
    assert len(rules[0]["rules"]) > 5


# ---------------------------------------------------------------- building models


def test_a_build_appears_in_the_gateway_as_its_owners(
    with_triton: Deployment, repository: Path
) -> None:
    # `docker compose run` does this by itself where the image is missing.
    with_triton.compose("build", "--quiet", "export", timeout_s=3600)
    words = ["lenet5", "--weights", "random", "--name", "fresh", "--triton", "triton:8001"]
    with_triton.compose("run", "--rm", "export", *words, timeout_s=1200)
    with Client(with_triton.grpc) as client:
        wait_for(lambda: "fresh" in {model.name for model in client.models()})
        wait_for(lambda: is_answered(client, "fresh"))
        assert client.classify(DIGIT, model="fresh").weights == "random"
    built = [repository / "fresh.v1", *(repository / "fresh.v1").rglob("*")]
    assert len(built) > 3
    assert {(path.stat().st_uid, path.stat().st_gid) for path in built} == {(4321, 8765)}


def is_answered(client: Client, model: str) -> bool:
    try:
        return bool(client.classify(DIGIT, model=model).classes)
    except errors.ConvoyError:
        return False


# ---------------------------------------------------------------- GPUs, as far as it goes


def test_the_override_gives_gpus_to_triton_and_to_builds() -> None:
    words = ["compose", "--env-file", "/dev/null", "--profile", "*"]
    words += ["-f", "docker-compose.yml", "-f", "docker-compose.gpu.yml", "config"]
    config = json.loads(docker(*words, "--format", "json"))["services"]
    for name in ("triton", "export"):
        (device,) = config[name]["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["count"], device["capabilities"]) == (
            "nvidia",
            -1,
            ["gpu"],
        )
        assert "memory" in config[name]["deploy"]["resources"]["limits"]
    assert "nvidia" in config["export"]["build"]["args"]["BASE_IMAGE"]


# ---------------------------------------------------------------- a stack on three engines


@pytest.fixture(scope="module")
def engines() -> dict[str, str]:
    """Returns the engine of each address in SWARM_HOSTS: "10.0.0.1=unix:///… 10.0.0.2=…"."""
    named = os.environ.get("SWARM_HOSTS")
    if not named:
        pytest.skip("needs SWARM_HOSTS: three engines, as ADDRESS=DOCKER_HOST, with spaces between")
    return dict(pair.split("=", 1) for pair in named.split())


@pytest.fixture(scope="module")
def stack(
    engines: dict[str, str],
    gateway_image: str,
    triton_standin: str,
    repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[list[str]]:
    """A stack of gateways and Tritons; the first host is its manager."""
    archive = tmp_path_factory.mktemp("swarm") / "images.tar"
    docker("save", "--output", str(archive), gateway_image, triton_standin, timeout_s=600)
    addresses = list(engines)
    for host in engines.values():
        docker("load", "--quiet", "--input", str(archive), host=host, timeout_s=900)
    manager = engines[addresses[0]]
    docker("swarm", "init", "--advertise-addr", addresses[0], host=manager)
    token = docker("swarm", "join-token", "--quiet", "worker", host=manager).strip()
    for address in addresses[1:]:
        words = ("swarm", "join", "--token", token, f"{addresses[0]}:2377")
        docker(*words, host=engines[address])
    try:
        deploy_stack(manager, MODEL_REPOSITORY=str(repository))
        yield addresses
    finally:
        for host in reversed(engines.values()):
            docker("swarm", "leave", "--force", host=host)


def deploy_stack(manager: str, **settings: str) -> None:
    words = ["docker", "stack", "deploy", "--resolve-image", "never", "--detach=true"]
    settings["CONVOY_ALLOW_UNAUTHENTICATED"] = "true"
    environment = {**clean_environment(), **settings, "DOCKER_HOST": manager}
    run([*words, "-c", "deploy/swarm.yml", "convoy"], environment, 300)


@pytest.fixture(scope="module")
def small_digit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image that takes a tenth of the time: all hosts and clients share this machine."""
    path = tmp_path_factory.mktemp("digit") / "small.png"
    Image.open(DIGIT).resize((96, 96)).save(path)
    return path


def as_client(*command: str) -> list[str]:
    """Prefixes a command with SWARM_CLIENT, which runs it on a machine that reaches the hosts."""
    return [*shlex.split(os.environ.get("SWARM_CLIENT", "")), *command]


def is_ready_at(address: str) -> bool:
    url = f"http://{address}:8080/readyz"
    probe = "import sys, httpx; sys.exit(httpx.get(sys.argv[1]).status_code != 200)"
    return not subprocess.run(
        as_client(sys.executable, "-c", probe, url), capture_output=True, check=False
    ).returncode


def ask_for(seconds: int, image: Path, hosts: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "tests/deploy/cluster_load.py", str(seconds), str(image), *hosts]
    return subprocess.Popen(as_client(*command), cwd=ROOT, stdout=subprocess.PIPE, text=True)


def counted(asking: subprocess.Popen[str]) -> dict[str, int]:
    output, _ = asking.communicate(timeout=180)
    counts: dict[str, int] = json.loads(output)
    return counts


def test_swarm_stack(
    stack: list[str],
    engines: dict[str, str],
    repository: Path,
    small_digit: Path,
    measured: Measured,
) -> None:
    """One gateway per node, in process; then a node is cut off under load; then Tritons are added.

    SWARM_CUT and SWARM_MEND are commands that disconnect the last host and reconnect it.
    """
    manager = engines[stack[0]]
    wait_for(lambda: all(map(is_ready_at, stack)), 180)
    quiet = counted(ask_for(10, small_digit, stack))
    measured("stack of three, nothing happens", quiet)
    assert quiet["answered"] == quiet["asked"] > 30

    asking = ask_for(30, small_digit, stack)
    time.sleep(5)
    subprocess.run(shlex.split(os.environ["SWARM_CUT"]), check=True)
    try:
        cut = counted(asking)
    finally:
        subprocess.run(shlex.split(os.environ["SWARM_MEND"]), check=True)
    measured("stack of three, one host cut off", cut)
    assert cut.get("lost", 0) == 0 and not any(what.startswith("wrong") for what in cut)
    wait_for(lambda: is_ready_at(stack[-1]), 180)

    # Triton comes first, then the gateways one by one.
    tritons = {
        "MODEL_REPOSITORY": str(repository),
        "TRITON_IMAGE": TRITON_STANDIN,
        "TRITON_REPLICAS": "3",
    }
    deploy_stack(manager, **tritons)
    wait_for(lambda: running("convoy_triton", manager) == 3, 240)
    asking = ask_for(100, small_digit, stack)
    deploy_stack(manager, **tritons, CONVOY_TRITON="triton:8001")
    rolled = counted(asking)
    measured("stack of three, rolled to Triton", rolled)
    wait_for(lambda: is_updated("convoy_gateway", manager), 240)
    assert all(map(is_ready_at, stack))
    assert rolled.get("lost", 0) == 0


def running(service: str, manager: str) -> int:
    words = ["service", "ps", service, "--filter", "desired-state=running"]
    states = docker(*words, "--format", "{{.CurrentState}}", host=manager).splitlines()
    return sum(state.startswith("Running") for state in states)


def is_updated(service: str, manager: str) -> bool:
    (known,) = json.loads(docker("service", "inspect", service, host=manager))
    state: str = known["UpdateStatus"]["State"]
    assert state in ("updating", "completed"), known["UpdateStatus"]
    return state == "completed"
