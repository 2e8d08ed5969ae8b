"""Reads the files of a deployment the way engines do."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"
GPU = ROOT / "docker-compose.gpu.yml"
SWARM = ROOT / "deploy" / "swarm.yml"
OVERRIDES = (ROOT / "deploy" / "keys.yml", ROOT / "deploy" / "tls.yml")
ALL = (COMPOSE, GPU, SWARM, *OVERRIDES)
# All but the exporter, which runs on demand.
STANDING = {"gateway", "triton", "prometheus", "grafana"}

# ${NAME}, ${NAME:-default}, ${NAME-default if it is unset} or ${NAME:?what it must be}
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::?(?P<kind>[-?])(?P<rest>[^}]*))?\}")


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


def services(path: Path) -> dict[str, dict[str, Any]]:
    by_name: dict[str, dict[str, Any]] = read(path)["services"]
    return by_name


def with_defaults(value: Any) -> Any:
    """Returns the value with every variable unset."""
    if isinstance(value, dict):
        return {key: with_defaults(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_defaults(item) for item in value]
    if isinstance(value, str):
        return VARIABLE.sub(lambda found: found["rest"] or "", value)
    return value


def variables(*paths: Path) -> dict[str, str | None]:
    """Returns the variables of .env that the files use, with their defaults; None without one."""
    defaults: dict[str, str | None] = {}
    for path in paths:
        for match in VARIABLE.finditer(path.read_text()):
            default = match["rest"] if match["kind"] == "-" else None
            known = defaults.setdefault(match["name"], default)
            if default is not None:
                assert known in (default, None), f"{match['name']} has two defaults"
                defaults[match["name"]] = default
        for service in services(path).values():
            passed_on = [
                name for name, value in service.get("environment", {}).items() if not value
            ]
            defaults = dict.fromkeys(passed_on) | defaults
    return defaults


def clean_environment() -> dict[str, str]:
    """Returns the environment without settings, except the sources that builds download from."""
    settings = set(variables(*ALL)) | {"COMPOSE_FILE", "COMPOSE_PROFILES"}
    settings -= {"PYTHON_IMAGE", "EXPORT_BASE_IMAGE", "TORCH_INDEX"}
    return {name: value for name, value in os.environ.items() if name not in settings}
