"""deploy/kubernetes: what kubectl renders from it, checked without a cluster."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from server.http_api.server import FLUSH_TIMEOUT_S
from server.runners.tritonserver_wheel import environment, lay_out_backends
from server.settings import Settings
from tests.conftest import RunningGateway, Serve
from tests.deploy.files import COMPOSE, GPU, ROOT, read, services, with_defaults
from tests.loopback import answers, free_port, wait_for

KUBERNETES = ROOT / "deploy" / "kubernetes"
# From the oldest release with the sidecars that repository-objects needs to the newest.
RELEASES = ("1.29", "1.32", "1.35", "1.37")
# Each overlay unchanged, and with other components in place of its own.
DEPLOYMENTS: dict[str, tuple[str, list[str] | None]] = {
    "cpu": ("cpu", None),
    "gpu": ("gpu", None),
    "cpu, a volume": ("cpu", ["keys", "tls", "repository-volume", "prometheus-operator"]),
    "cpu, a bucket": ("cpu", ["keys", "repository-objects"]),
    "cpu, Triton": ("cpu", ["keys", "triton", "repository-objects", "triton-autoscaler"]),
    "gpu, everything": (
        "gpu",
        ["keys", "tls", "triton", "repository-volume", "triton-autoscaler", "prometheus-operator"],
    ),
}
# Kinds of the Prometheus Operator, whose schemas are not part of Kubernetes.
OF_THE_OPERATOR = {"ServiceMonitor", "PrometheusRule"}

VERSION = version("convoy-serving")

Manifest = dict[str, Any]


# ---------------------------------------------------------------- what kubectl makes of the files


@pytest.fixture(params=DEPLOYMENTS)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return rendered(request.param)


@cache
def rendered(deployment: str) -> list[Manifest]:
    overlay, components = DEPLOYMENTS[deployment]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(KUBERNETES, folder, dirs_exist_ok=True)
        path = Path(folder, "overlays", overlay, "kustomization.yml")
        if components is not None:
            content = yaml.safe_load(path.read_text())
            content["components"] = [f"../../components/{name}" for name in components]
            path.write_text(yaml.safe_dump(content))
        return render(path.parent)


def render(folder: Path) -> list[Manifest]:
    kubectl = Path(sys.executable).with_name("kubectl")
    done = subprocess.run(
        [kubectl, "kustomize", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # kubectl warns about what is deprecated.
    assert done.stderr == ""
    return list(yaml.safe_load_all(done.stdout))


def select_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {one["metadata"]["name"]: one for one in manifests if one["kind"] == kind}


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Returns the pod template of each Deployment."""
    return {
        name: one["spec"]["template"] for name, one in select_kind(manifests, "Deployment").items()
    }


def containers(pod: Manifest) -> list[Manifest]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def variables(container: Manifest) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container.get("env", [])}


def selects(selector: Manifest, pod: Manifest) -> bool:
    return bool(selector.items() <= pod["metadata"]["labels"].items())


# ---------------------------------------------------------------- what Kubernetes makes of that


@pytest.mark.parametrize("release", RELEASES)
def test_the_releases_take_each_manifest(release: str) -> None:
    import kubernetes_validate  # takes 3 s, in each worker if on top

    everything = [job(), *(one for name in DEPLOYMENTS for one in rendered(name))]
    for manifest in {yaml.safe_dump(one): one for one in everything}.values():
        if manifest["kind"] not in OF_THE_OPERATOR:
            assert kubernetes_validate.validate(manifest, release, strict=True) == release


def job() -> Manifest:
    return read(KUBERNETES / "jobs" / "build.yml")


def test_each_component_is_part_of_a_deployment_here() -> None:
    listed = {name for _, components in DEPLOYMENTS.values() for name in components or []}
    # The components with a repository include this one.
    assert {path.name for path in (KUBERNETES / "components").iterdir()} == listed | {"doctor"}


def test_everything_is_in_the_namespace_and_has_the_label(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        metadata = manifest["metadata"]
        assert metadata["labels"]["app.kubernetes.io/part-of"] == "convoy", metadata
        assert (metadata.get("namespace") or metadata["name"]) == "convoy", metadata
    enforced = select_kind(manifests, "Namespace")["convoy"]["metadata"]["labels"]
    assert enforced["pod-security.kubernetes.io/enforce"] == "restricted"


def test_what_is_referred_to_is_there(manifests: list[Manifest]) -> None:
    claims = set(select_kind(manifests, "PersistentVolumeClaim"))
    configs = set(select_kind(manifests, "ConfigMap"))
    # People create these with the command at the top of the component.
    secrets = {"api-keys", "gateway-tls", "model-store"}
    for pod in pods(manifests).values():
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
            if "configMap" in volume:
                assert volume["configMap"]["name"] in configs
            if "secret" in volume:
                assert volume["secret"]["secretName"] in secrets
        mounted = {mount["name"] for one in containers(pod) for mount in one["volumeMounts"]}
        assert mounted == set(volumes)


def test_services_autoscalers_and_budgets_are_of_pods_that_are_there(
    manifests: list[Manifest],
) -> None:
    by_name = pods(manifests)
    for name, service in select_kind(manifests, "Service").items():
        (pod,) = [one for one in by_name.values() if selects(service["spec"]["selector"], one)]
        open_ports = {port["name"] for one in containers(pod) for port in one.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= open_ports, name
    for budget in select_kind(manifests, "PodDisruptionBudget").values():
        labels = budget["spec"]["selector"]["matchLabels"]
        assert len([one for one in by_name.values() if selects(labels, one)]) == 1
    for name, autoscaler in select_kind(manifests, "HorizontalPodAutoscaler").items():
        assert autoscaler["spec"]["scaleTargetRef"]["name"] == name
        # Otherwise each `kubectl apply` would reset the number.
        assert "replicas" not in select_kind(manifests, "Deployment")[name]["spec"]


def test_monitors_find_the_ports_and_name_the_jobs_of_the_alerts() -> None:
    manifests = rendered("gpu, everything")
    monitors = select_kind(manifests, "ServiceMonitor")
    for job, monitor in monitors.items():
        labels = monitor["spec"]["selector"]["matchLabels"]
        (service,) = [
            one
            for one in select_kind(manifests, "Service").values()
            if labels.items() <= one["metadata"]["labels"].items()
        ]
        assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == job
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        assert service["spec"]["clusterIP"] == "None"
    alerts = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text()
    assert set(monitors) == set(re.findall(r'job="(\w+)"', alerts))


def test_the_rules_of_the_operator_are_the_alerts() -> None:
    (rules,) = select_kind(rendered("gpu, everything"), "PrometheusRule").values()
    assert rules["spec"] == read(ROOT / "deploy" / "prometheus" / "alerts.yml")


# ---------------------------------------------------------------- what is safe


def test_each_container_has_few_rights_and_a_limit(manifests: list[Manifest]) -> None:
    for pod in [*pods(manifests).values(), job()["spec"]["template"]]:
        assert pod["spec"]["automountServiceAccountToken"] is False
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] and context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            resources = container["resources"]
            assert resources["limits"]["memory"] == resources["requests"]["memory"]


def test_tritons_ports_are_the_gateways_and_monitorings(manifests: list[Manifest]) -> None:
    for name, policy in select_kind(manifests, "NetworkPolicy").items():
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        assert len([p for p in pods(manifests).values() if guards(policy, p)]) == 1, name
    for name, pod in pods(manifests).items():
        policies = select_kind(manifests, "NetworkPolicy").values()
        (policy,) = [one for one in policies if guards(one, pod)]
        assert (
            allowed_peers(policy, pods(manifests))
            == {
                "gateway": {"http": {"all"}, "grpc": {"all"}, "operator": {"monitoring"}},
                "triton": {"grpc": {"gateway"}, "metrics": {"monitoring"}},
                "repository": {},
            }[name]
        )


def guards(policy: Manifest, pod: Manifest) -> bool:
    return selects(policy["spec"]["podSelector"]["matchLabels"], pod)


def allowed_peers(policy: Manifest, there: dict[str, Manifest]) -> dict[str, set[str]]:
    """Returns the peers that may reach each port: pods, a namespace, or all."""
    peers: dict[str, set[str]] = {}
    for rule in policy["spec"]["ingress"]:
        who = set() if "from" in rule else {"all"}
        for peer in rule.get("from", []):
            if "namespaceSelector" in peer:
                who.add(peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"])
            else:
                labels = peer["podSelector"]["matchLabels"]
                who |= {name for name, pod in there.items() if selects(labels, pod)}
        for port in rule["ports"]:
            peers.setdefault(port["port"], set()).update(who)
    return peers


def test_the_gateway_may_reach_dns_triton_and_the_store_alone(
    manifests: list[Manifest],
) -> None:
    gateway = select_kind(manifests, "NetworkPolicy")["gateway"]["spec"]["egress"]
    goes_to = {port["port"] for rule in gateway for port in rule["ports"]}
    by_name = pods(manifests)
    fetches = any(one["name"] == "fetch" for one in containers(by_name["gateway"]))
    assert goes_to == {53} | ({8001} if "triton" in by_name else set()) | (
        {443} if fetches else set()
    )


# ---------------------------------------------------------------- what is lost nowhere


def test_a_rolling_update_removes_no_pod_before_the_next_one_serves(
    manifests: list[Manifest],
) -> None:
    for name, deployment in select_kind(manifests, "Deployment").items():
        if name == "repository":
            continue
        strategy = deployment["spec"]["strategy"]["rollingUpdate"]
        # There may be no spare GPU, and one of two Tritons is enough to serve.
        spare = {"maxSurge": 1, "maxUnavailable": 0}
        of_gpus = {"maxSurge": 0, "maxUnavailable": 1}
        has_gpu = "nvidia.com/gpu" in containers(pods(manifests)[name])[-1]["resources"]["limits"]
        assert strategy == (of_gpus if has_gpu else spare), name
        assert deployment["spec"]["minReadySeconds"] > 0
        assert "readinessProbe" in pods(manifests)[name]["spec"]["containers"][0]


def test_the_gateway_is_killed_only_after_it_has_drained(manifests: list[Manifest]) -> None:
    pod = pods(manifests)["gateway"]
    (gateway,) = pod["spec"]["containers"]
    settings = variables(gateway)
    not_ready_s = float(settings["CONVOY_NOT_READY_S"])
    longest_s = not_ready_s + Settings().shutdown_grace_s + FLUSH_TIMEOUT_S
    assert pod["spec"]["terminationGracePeriodSeconds"] > longest_s
    probe = gateway["readinessProbe"]
    assert not_ready_s > probe["failureThreshold"] * (
        probe["periodSeconds"] + probe["timeoutSeconds"]
    )


# ---------------------------------------------------------------- the same as elsewhere


def test_images_and_tritons_options_are_those_of_the_compose_file() -> None:
    for manifests in map(rendered, DEPLOYMENTS):
        images = {one["image"] for pod in pods(manifests).values() for one in containers(pod)}
        compose = {name: with_defaults(one["image"]) for name, one in services(COMPOSE).items()}
        ours = f"{compose['gateway']}:{VERSION}"
        assert images - {"rclone/rclone:1.75.2"} <= {ours, compose["triton"]}
        assert ours in images
    (triton,) = pods(rendered("gpu"))["triton"]["spec"]["containers"]
    assert triton["args"] == services(COMPOSE)["triton"]["command"]
    job_text = (KUBERNETES / "jobs" / "build.yml").read_text()
    for path in (COMPOSE, GPU):
        exporter = with_defaults(services(path)["export"]["image"])
        assert f"{exporter}:{VERSION}" in job_text


# ---------------------------------------------------------------- with real processes


def test_the_gateway_takes_its_settings() -> None:
    (gateway,) = pods(rendered("gpu, everything"))["gateway"]["spec"]["containers"]
    # The image sets the variables of the addresses.
    recipe = (ROOT / "deploy" / "gateway.Dockerfile").read_text()
    of_the_image = dict(re.findall(r"\b(CONVOY_\w+_ADDRESS)=(\S+)", recipe))
    clean = {name: text for name, text in os.environ.items() if not name.startswith("CONVOY_")}
    shown = subprocess.run(
        [sys.executable, "-m", "convoy.cli", "serve", "--show-config"],
        env={**clean, **of_the_image, **variables(gateway)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    for name in variables(gateway):
        assert re.search(rf"{name.removeprefix('CONVOY_').lower()} = .*{name}", shown.stdout), name
    listens = {address.rpartition(":")[2] for address in of_the_image.values()}
    assert {str(port["containerPort"]) for port in gateway["ports"]} == listens


def test_the_gateways_probes_are_answered(lenet_gateway: RunningGateway) -> None:
    (gateway,) = pods(rendered("cpu"))["gateway"]["spec"]["containers"]
    for probe in ("readinessProbe", "livenessProbe"):
        path = gateway[probe]["httpGet"]["path"]
        assert httpx.get(f"{lenet_gateway.admin}{path}").status_code == 200


@pytest.mark.parametrize("is_broken", [False, True], ids=["healthy", "broken"])
def test_doctor_reports_faults_and_keeps_no_pod_from_starting(
    repository: Path, is_broken: bool
) -> None:
    doctor = pods(rendered("gpu"))["triton"]["spec"]["initContainers"][0]
    if is_broken:
        (repository / "lenet5.v1" / "1" / "model.onnx").write_bytes(b"no network")
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        doctor["command"],
        env={**os.environ, "CONVOY_REPOSITORY": str(repository), "PATH": programs},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert ("faults stay out" in done.stdout) == is_broken


@pytest.fixture
def triton(tritonserver: Path, repository: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Runs a real tritonserver with the manifest's options; returns addresses by port name."""
    lay_out_backends(tritonserver, tmp_path / "backends")
    (container,) = pods(rendered("gpu"))["triton"]["spec"]["containers"]
    ports = {port["name"]: free_port() for port in container["ports"]}
    options = [option.replace("/models", str(repository)) for option in container["args"][1:]]
    command = [
        str(tritonserver / "bin" / "tritonserver"),
        *options,
        f"--backend-directory={tmp_path}/backends",
        *(f"--{name}-port={port}" for name, port in ports.items()),
        *(f"--{name}-address=127.0.0.1" for name in ports),
        "--allow-gpu-metrics=false",
        "--pinned-memory-pool-byte-size=0",
    ]
    with (tmp_path / "triton.log").open("w") as log:
        process = subprocess.Popen(command, env=environment(), stdout=log, stderr=log)
    try:
        yield {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    finally:
        process.terminate()
        process.wait(60)


def test_triton_is_ready_and_reports_its_queue_once_a_gateway_has_loaded_a_version(
    triton: dict[str, str], serve: Serve
) -> None:
    (container,) = pods(rendered("gpu"))["triton"]["spec"]["containers"]
    live = container["livenessProbe"]["httpGet"]["path"]
    wait_for(lambda: answers(f"http://{triton['http']}{live}"))
    probe = [
        word.replace("127.0.0.1:8000", triton["http"])
        for word in container["readinessProbe"]["exec"]["command"]
    ]
    assert triton["http"] in probe[-1]
    assert not succeeds(probe)
    serve(f"--triton={triton['grpc']}").wait_until_ready()
    assert succeeds(probe)
    # The proof of the version has left requests to count.
    metrics = httpx.get(f"http://{triton['metrics']}/metrics").text
    (rule,) = adapter()["rules"]["custom"]
    for name in set(re.findall(r"nv_\w+", rule["metricsQuery"] + rule["seriesQuery"])):
        assert re.search(rf'^{name}{{model="lenet5.v1".*}} [1-9]', metrics, re.M), name


def test_the_autoscaler_and_its_adapter_speak_of_one_metric() -> None:
    autoscaler = select_kind(rendered("gpu, everything"), "HorizontalPodAutoscaler")["triton"]
    (metric,) = autoscaler["spec"]["metrics"]
    (rule,) = adapter()["rules"]["custom"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]


def adapter() -> Manifest:
    return read(KUBERNETES / "components" / "triton-autoscaler" / "prometheus-adapter.yml")


def succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


# ---------------------------------------------------------------- a bucket


@pytest.fixture
def store(tmp_path: Path, repository: Path) -> Iterator[Callable[[int], subprocess.Popen[str]]]:
    """Runs the nth of the gateway's init containers on a store of files."""
    config = tmp_path / "rclone.conf"
    config.write_text(f"[store]\ntype = alias\nremote = {tmp_path}/store\n")
    (tmp_path / "store").mkdir()
    repository.rename(tmp_path / "store" / "models")
    with contextlib.ExitStack() as running:

        def run(number: int) -> subprocess.Popen[str]:
            container = pods(rendered("cpu, a bucket"))["gateway"]["spec"]["initContainers"][number]
            script = KUBERNETES / "components" / "repository-objects" / "fetch.sh"
            words = {"/etc/fetch/fetch.sh": str(script), "30": "0.2"}
            settings = {
                **variables(container),
                "RCLONE_CONFIG": str(config),
                "CONVOY_REPOSITORY": str(tmp_path / "models"),
                "PATH": f"{tmp_path}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
            }
            command = [words.get(word, word) for word in container["command"]]
            process = subprocess.Popen(command, env=settings, stderr=subprocess.PIPE, text=True)
            running.callback(process.communicate)
            running.callback(process.terminate)
            return process

        yield run


@pytest.mark.slow
def test_a_bucket_is_there_before_the_pod_and_followed_after(
    tmp_path: Path, store: Callable[[int], subprocess.Popen[str]]
) -> None:
    there, here = tmp_path / "store" / "models", tmp_path / "models"
    assert store(0).wait(30) == 0
    assert read_files(here) == read_files(there) != {}
    renewing = store(-1)
    shutil.copytree(there / "lenet5.v1", tmp_path / "lenet5.v2")
    (tmp_path / "lenet5.v2" / "1" / "model.onnx").write_bytes(bytes(64 << 20))
    (tmp_path / "lenet5.v2").rename(there / "lenet5.v2")
    wait_for((here / "lenet5.v2" / "config.pbtxt").exists)
    assert read_files(here) == read_files(there)
    # By the time of arrival: without config.pbtxt a folder is no version.
    last = max((here / "lenet5.v2").rglob("*.*"), key=lambda path: path.stat().st_ctime_ns)
    assert last.name == "config.pbtxt"
    shutil.rmtree(there / "lenet5.v2")
    wait_for(lambda: not (here / "lenet5.v2").exists())
    began_s = time.monotonic()
    renewing.terminate()
    assert renewing.wait(30) == 0
    assert time.monotonic() - began_s < 5


def test_a_version_that_arrives_during_a_fetch_comes_whole_with_the_next(
    tmp_path: Path, store: Callable[[int], subprocess.Popen[str]]
) -> None:
    there, here, arriving = tmp_path / "store" / "models", tmp_path / "models", tmp_path / "v2"
    shutil.copytree(there / "lenet5.v1", arriving)
    # The version arrives right after the first request to the store.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "rclone").write_text(
        f'#!/bin/sh\n{Path(sys.executable).with_name("rclone")} "$@" || exit\n'
        f"[ ! -d {arriving} ] || mv {arriving} {there}/lenet5.v2\n"
    )
    (tmp_path / "bin" / "rclone").chmod(0o755)
    assert store(0).wait(30) == 0
    assert (there / "lenet5.v2").exists() and not arriving.exists()
    assert (here / "lenet5.v1" / "config.pbtxt").exists()
    assert not (here / "lenet5.v2" / "config.pbtxt").exists()
    assert store(0).wait(30) == 0
    assert read_files(here) == read_files(there)


def test_a_store_that_is_away_keeps_a_pod_from_starting_and_ends_none(
    tmp_path: Path, store: Callable[[int], subprocess.Popen[str]]
) -> None:
    assert store(0).wait(30) == 0
    (tmp_path / "store" / "models").rename(tmp_path / "store" / "away")
    renewing = store(-1)
    assert renewing.stderr
    failures = (line for line in renewing.stderr if "tried again" in line)
    assert next(failures, "") and next(failures, "")
    assert (tmp_path / "models" / "lenet5.v1" / "config.pbtxt").exists()
    assert store(0).wait(30) != 0


def read_files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
