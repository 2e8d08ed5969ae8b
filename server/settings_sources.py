"""Where each setting comes from: a flag, a variable CONVOY_…, --config's file, or its default."""

from __future__ import annotations

import difflib
import json
import logging
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from server.settings import Settings, mask_password

logger = logging.getLogger(__name__)

PREFIX = "CONVOY_"
# Read by the client library and its command, which may run beside the gateway.
CLIENT_VARIABLES = {"CONVOY_SERVER", "CONVOY_API_KEY", "CONVOY_CA"}
# These make no sense in a file.
NOT_IN_FILES = ("config", "show_config")


class WrongSettings(Exception):
    """Each line has a setting as the operator wrote it, what is wrong, and its value."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True)
class ResolvedSettings:
    """The settings, and where each that is not a default comes from, as the operator wrote it."""

    settings: Settings
    origins: Mapping[str, str]

    def as_toml(self) -> str:
        """A file for --config with the same settings, and where each value came from."""
        lines = [self._line(name) for name in Settings.model_fields if name not in NOT_IN_FILES]
        return "\n".join(lines) + "\n"

    def warn_of_unknown_variables(self) -> None:
        known = {PREFIX + name.upper() for name in Settings.model_fields} | CLIENT_VARIABLES
        for name in sorted(set(os.environ) - known):
            if name.startswith(PREFIX):
                nearest = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {nearest[0]}?" if nearest else ""
                logger.warning("unknown variable %s%s", name, hint)

    def _line(self, name: str) -> str:
        value, origin = getattr(self.settings, name), self.origins.get(name, "default")
        if value is None:
            return f"# {name} is not set"
        return f"{name} = {toml_value(value)}  # {origin}"


def read(flags: Mapping[str, str | bool]) -> ResolvedSettings:
    """
    Args:
        flags: those that were given, by the name of the setting.

    Raises:
        WrongSettings: a setting is unknown, or its value is not allowed.
    """
    try:
        variables = EnvSettingsSource(Settings)()
    except SettingsError as error:
        raise WrongSettings([str(error)]) from error
    file = read_file(flags.get("config") or variables.get("config"))
    values = {**file.values, **variables, **flags}
    origins = {
        **{name: f"{file.path}: {name}" for name in file.values},
        **{name: PREFIX + name.upper() for name in variables},
        **{name: flag_name(name) for name in flags},
    }
    try:
        return ResolvedSettings(Settings.model_validate(values), origins)
    except ValidationError as invalid:
        lines = [format_validation_error(error, origins) for error in invalid.errors()]
        raise WrongSettings(lines) from invalid


def flag_name(name: str) -> str:
    return "--" + name.replace("_", "-")


@dataclass(frozen=True)
class File:
    path: Path | None
    values: dict[str, Any]


def read_file(path: Any) -> File:
    if path is None:
        return File(None, {})
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise WrongSettings([f"--config {path} cannot be read: {error.strerror}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WrongSettings([f"--config {path} is not valid TOML: {error}"]) from error
    wrong = [name for name in values if name not in Settings.model_fields or name in NOT_IN_FILES]
    if wrong:
        raise WrongSettings([f"{path}: {unknown_setting(name)}" for name in wrong])
    return File(Path(path), values)


def unknown_setting(name: str) -> str:
    nearest = difflib.get_close_matches(name, Settings.model_fields, n=1)
    return f"unknown setting {name}" + (f"; did you mean {nearest[0]}?" if nearest else "")


def format_validation_error(error: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    name = str(error["loc"][0]) if error["loc"] else "settings"
    message = str(error["msg"]).removeprefix("Value error, ")
    value = mask_password(repr(error["input"]))
    return f"{origins.get(name, name)}: {message}, got {value}"


def toml_value(value: object) -> str:
    """JSON writes text, numbers, booleans and lists as TOML does. Passwords are masked."""
    return mask_password(json.dumps(value, default=str, ensure_ascii=False))
