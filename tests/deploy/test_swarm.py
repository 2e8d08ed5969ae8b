"""deploy/swarm.yml agrees with docker-compose.yml, as far as a stack can."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.files import COMPOSE, STANDING, SWARM, read, services

# Keys that the two files give the same value.
SHARED = (
    *("image", "command", "user", "environment", "healthcheck", "read_only", "cap_drop"),
    *("configs", "stop_grace_period"),
)
OPEN = "CONVOY_ALLOW_UNAUTHENTICATED"
# Keys that a stack refuses, or ignores with a warning.
NOT_IN_A_STACK = (
    *("build", "profiles", "restart", "security_opt", "depends_on", "container_name", "shm_size"),
    *("devices", "privileged", "network_mode", "ipc", "links"),
)


@pytest.mark.parametrize("name", sorted(STANDING))
def test_a_service_is_the_same_in_both(name: str) -> None:
    compose, swarm = services(COMPOSE)[name], services(SWARM)[name]
    if name == "gateway":
        # Compose publishes on this machine only, a stack on every node.
        assert compose["environment"].pop(OPEN) == f"${{{OPEN}:-true}}"
        assert swarm["environment"].pop(OPEN) is None
    assert {key: swarm.get(key) for key in SHARED} == {key: compose.get(key) for key in SHARED}
    limits = [one["deploy"]["resources"]["limits"] for one in (compose, swarm)]
    assert limits[0] == limits[1]
    assert targets(compose) == targets(swarm)


def targets(service: dict[str, Any]) -> list[Any]:
    """Returns the mounts, without the names of their sources."""
    mounts = service.get("volumes", [])
    return [mount if isinstance(mount, str) else {**mount, "source": ""} for mount in mounts]


def test_a_stack_has_all_but_the_exporter() -> None:
    assert set(services(SWARM)) == STANDING
    assert set(services(COMPOSE)) == STANDING | {"export"}


@pytest.mark.parametrize("name", sorted(STANDING))
def test_no_key_is_one_that_a_stack_ignores(name: str) -> None:
    assert not set(services(SWARM)[name]) & set(NOT_IN_A_STACK)


@pytest.mark.parametrize("name", sorted(STANDING))
def test_no_service_needs_ipvs(name: str) -> None:
    """Virtual addresses and the routing mesh need it, and not every kernel has the module."""
    service = services(SWARM)[name]
    assert service["deploy"]["endpoint_mode"] == "dnsrr"
    assert all(port["mode"] == "host" for port in service.get("ports", []))


def test_the_configurations_are_the_same_files() -> None:
    compose, swarm = read(COMPOSE)["configs"], read(SWARM)["configs"]
    assert {name: f"deploy/{one['file']}" for name, one in swarm.items()} == {
        name: one["file"] for name, one in compose.items()
    }
