"""docker-compose.yml, its overrides and .env.example, without an engine."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from server.settings import Settings
from tests.deploy.files import (
    ALL,
    COMPOSE,
    GPU,
    ROOT,
    STANDING,
    read,
    services,
    variables,
    with_defaults,
)

EXAMPLE = (ROOT / ".env.example").read_text()
# `NAME=value`, commented out; after "E.g." it is an example and not the default.
EXAMPLES = dict(re.findall(r"^# ([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))
# Compose's own, which stand in no file.
COMPOSES_OWN = {"COMPOSE_FILE", "COMPOSE_PROFILES"}


def test_the_files_are_what_the_specification_allows() -> None:
    vendored = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    specification = Draft202012Validator(json.loads(vendored.read_text()))
    for path in ALL:
        assert [error.message for error in specification.iter_errors(read(path))] == [], path


def test_each_setting_is_explained_in_the_example_and_nothing_else_is() -> None:
    assert set(EXAMPLES) == set(variables(*ALL)) | COMPOSES_OWN


def test_the_example_names_the_defaults() -> None:
    defaults = {name: default for name, default in variables(*ALL).items() if default is not None}
    assert {name: EXAMPLES[name] for name in defaults} == defaults


def test_what_is_passed_to_the_gateway_is_a_setting_of_its() -> None:
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


def test_the_gateway_is_given_up_after_it_has_drained() -> None:
    grace: Any = services(COMPOSE)["gateway"]["stop_grace_period"]
    longest_s = float(EXAMPLES["CONVOY_NOT_READY_S"]) + Settings().shutdown_grace_s
    assert float(grace.removesuffix("s")) > longest_s
