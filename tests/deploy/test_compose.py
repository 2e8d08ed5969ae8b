"""docker-compose.yml, its overrides and .env.example; Compose reads them without an engine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest

from server.settings import Settings
from tests.deploy.files import (
    ALL,
    COMPOSE,
    GPU,
    OVERRIDES,
    ROOT,
    STANDING,
    SWARM,
    clean_environment,
    read,
    services,
    variables,
    with_defaults,
)

EXAMPLE = (ROOT / ".env.example").read_text()
# `NAME=value`, commented out; after "E.g." it is an example and not the default.
EXAMPLES = dict(re.findall(r"^# ([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))
# Those of Compose itself, which no file mentions.
COMPOSES_OWN = {"COMPOSE_FILE", "COMPOSE_PROFILES"}


def test_the_files_are_what_the_specification_allows() -> None:
    from jsonschema import Draft202012Validator  # takes 3 s to import, in each worker if on top

    vendored = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    specification = Draft202012Validator(json.loads(vendored.read_text()))
    for path in ALL:
        assert [error.message for error in specification.iter_errors(read(path))] == [], path


def test_each_setting_is_explained_in_the_example_and_nothing_else_is() -> None:
    assert set(EXAMPLES) == set(variables(*ALL)) | COMPOSES_OWN


def test_the_example_names_the_defaults() -> None:
    defaults = {name: default for name, default in variables(*ALL).items() if default is not None}
    assert {name: EXAMPLES[name] for name in defaults} == defaults


def test_what_is_passed_to_the_gateway_is_a_setting() -> None:
    for path in ALL:
        environment = services(path).get("gateway", {}).get("environment", {})
        for name in environment:
            assert name.removeprefix("CONVOY_").lower() in Settings.model_fields, (path, name)


def test_without_settings_the_gateway_alone_is_started() -> None:
    assert [name for name, one in services(COMPOSE).items() if "profiles" not in one] == ["gateway"]


@pytest.mark.parametrize("name", sorted(STANDING))
def test_each_service_is_watched_limited_and_restarted(name: str) -> None:
    service = services(COMPOSE)[name]
    assert service["restart"] == "unless-stopped"
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    # The gateway's is part of its image.
    assert "healthcheck" in service or name == "gateway"


@pytest.mark.parametrize("name", services(COMPOSE))
def test_each_service_has_few_rights(name: str) -> None:
    service = services(COMPOSE)[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service and "network_mode" not in service


def test_ports_are_this_machines_alone_and_tritons_are_not_published() -> None:
    for name, service in services(COMPOSE).items():
        for port in with_defaults(service.get("ports", [])):
            assert port.startswith("127.0.0.1:"), (name, port)
    assert "ports" not in services(COMPOSE)["triton"]


def test_every_image_can_be_replaced() -> None:
    for path in ALL:
        for name, service in services(path).items():
            assert service.get("image", "${").startswith("${"), (path, name)


def test_the_images_of_triton_and_tensorrt_are_of_one_release() -> None:
    triton = with_defaults(services(COMPOSE)["triton"]["image"])
    tensorrt = with_defaults(services(GPU)["export"]["build"]["args"]["BASE_IMAGE"])
    assert triton.rpartition(":")[2] == tensorrt.rpartition(":")[2]


def test_the_gateway_is_killed_only_after_it_has_drained() -> None:
    grace: Any = services(COMPOSE)["gateway"]["stop_grace_period"]
    longest_s = float(EXAMPLES["CONVOY_NOT_READY_S"]) + Settings().shutdown_grace_s
    assert float(grace.removesuffix("s")) > longest_s


# ---------------------------------------------------------------- docker compose config

TRITON = {"COMPOSE_PROFILES": "triton", "CONVOY_TRITON": "triton:8001"}
GPUS = {**TRITON, "COMPOSE_FILE": "docker-compose.yml:docker-compose.gpu.yml"}
KEYS = {"COMPOSE_FILE": "docker-compose.yml:deploy/keys.yml", "API_KEYS_FILE": "./keys.toml"}
TLS = {
    "COMPOSE_FILE": "docker-compose.yml:deploy/tls.yml",
    "TLS_CERTIFICATE_FILE": "./gateway.crt",
    "TLS_KEY_FILE": "./gateway.key",
}
OBSERVED = {"COMPOSE_PROFILES": "triton,observe"}


def config(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """`docker compose config` in the checkout, with an .env of these settings."""
    compose = Path(sys.executable).with_name("docker-compose")
    with NamedTemporaryFile("w", suffix=".env") as env:
        env.write("".join(f"{name}={value}\n" for name, value in settings.items()))
        env.flush()
        return subprocess.run(
            [compose, "--env-file", env.name, *words, "config", "--format", "json"],
            cwd=ROOT,
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
        )


def composed(*words: str, **settings: str) -> dict[str, dict[str, Any]]:
    """The services that Compose would start."""
    done = config(*words, **settings)
    assert done.returncode == 0, done.stderr
    services: dict[str, dict[str, Any]] = json.loads(done.stdout)["services"]
    return services


@pytest.mark.parametrize(
    ("settings", "started"),
    [
        ({}, {"gateway"}),
        (TRITON, {"gateway", "triton"}),
        (GPUS, {"gateway", "triton"}),
        (KEYS, {"gateway"}),
        (TLS, {"gateway"}),
        (OBSERVED, STANDING),
    ],
    ids=["nothing", "Triton", "GPUs", "keys", "TLS", "dashboards"],
)
def test_compose_starts_what_env_asks_for(settings: dict[str, str], started: set[str]) -> None:
    services = composed(**settings)
    assert set(services) == started
    for service in services.values():
        assert {port["host_ip"] for port in service.get("ports", [])} <= {"127.0.0.1"}
    assert services["gateway"]["environment"]["CONVOY_TRITON"] == settings.get("CONVOY_TRITON")


def test_the_defaults_of_the_example_change_nothing() -> None:
    defaults = [name for name, default in variables(COMPOSE).items() if default is not None]
    assert composed(**{name: EXAMPLES[name] for name in defaults}) == composed()


def test_gpus_are_tritons_and_the_exporters() -> None:
    services = composed("--profile", "*", **GPUS, GPUS="2")
    for name, service in services.items():
        reserved = service["deploy"]["resources"].get("reservations", {}).get("devices", [])
        gpus = [{"driver": "nvidia", "count": 2, "capabilities": ["gpu"]}]
        assert reserved == (gpus if name in ("triton", "export") else [])
        # The override keeps the limits of the file that it extends.
        assert service["deploy"]["resources"]["limits"]["memory"]


def test_keys_and_certificates_are_secrets_by_file() -> None:
    keys = composed(**KEYS)["gateway"]
    assert keys["environment"]["CONVOY_ALLOW_UNAUTHENTICATED"] == "false"
    assert [secret["source"] for secret in keys["secrets"]] == ["api_keys"]
    tls = composed(**TLS)["gateway"]
    assert [secret["source"] for secret in tls["secrets"]] == ["tls_certificate", "tls_key"]


def test_what_is_missing_is_asked_for_by_name() -> None:
    done = config(COMPOSE_FILE=KEYS["COMPOSE_FILE"])
    assert done.returncode != 0
    assert "API_KEYS_FILE" in done.stderr and "as convoy key writes it" in done.stderr


def test_every_image_can_be_pinned_by_its_digest() -> None:
    names = [name for name in EXAMPLES if name.endswith("_IMAGE")]
    pins = {name: f"registry.example/{name.lower()}@sha256:{'a' * 64}" for name in names}
    files = {"COMPOSE_FILE": "docker-compose.yml:docker-compose.gpu.yml"}
    of_cpu = composed("--profile", "*", **pins)
    of_gpu = composed("--profile", "*", **pins, **files)
    used = {service["image"] for one in (of_cpu, of_gpu) for service in one.values()}
    for service in (of_cpu["gateway"], of_cpu["export"], of_gpu["export"]):
        used |= set(service["build"]["args"].values())
    assert set(pins.values()) <= used


def test_a_stack_is_closed_unless_it_is_opened() -> None:
    words, path = ("--file", str(SWARM)), "/srv/models"
    for settings, value in (({}, None), ({"CONVOY_ALLOW_UNAUTHENTICATED": "true"}, "true")):
        gateway = composed(*words, MODEL_REPOSITORY=path, **settings)["gateway"]
        assert gateway["environment"]["CONVOY_ALLOW_UNAUTHENTICATED"] == value
    keys = composed(*words, "--file", str(OVERRIDES[0]), MODEL_REPOSITORY=path, **KEYS)["gateway"]
    assert keys["environment"]["CONVOY_ALLOW_UNAUTHENTICATED"] == "false" and keys["secrets"]


def test_the_collectors_port_is_the_one_for_http() -> None:
    assert EXAMPLES["CONVOY_OTLP_ENDPOINT"].endswith(":4318")


def test_git_ignores_keys() -> None:
    named = [EXAMPLES[name] for name in ("API_KEYS_FILE", "TLS_CERTIFICATE_FILE", "TLS_KEY_FILE")]
    for path in [*named, "deploy/client-ca.pem", "keys/alice.key", "keys.toml.bak", ".env.local"]:
        assert not subprocess.run(
            ["git", "check-ignore", "-q", path], cwd=ROOT, check=False
        ).returncode


def test_the_stack_is_read_too() -> None:
    services = composed("--file", str(SWARM), MODEL_REPOSITORY="/srv/models", **TRITON)
    assert set(services) == STANDING
    assert services["gateway"]["environment"]["CONVOY_TRITON"] == "triton:8001"
