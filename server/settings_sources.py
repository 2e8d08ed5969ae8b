"""Where each setting comes from: a flag, a variable CONVOY_…, --config's file, or its default."""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import CliSettingsSource, EnvSettingsSource, SettingsError

from server.settings import Settings

logger = logging.getLogger(__name__)

PREFIX = "CONVOY_"
# Read by the client library and its command, which may run beside the gateway.
CLIENT_VARIABLES = {"CONVOY_SERVER", "CONVOY_API_KEY", "CONVOY_CA"}
# What a file cannot say of itself.
NOT_IN_FILES = ("config", "show_config")


class WrongSettings(Exception):
    """Each line names a setting as the operator wrote it, what is wrong, and its value."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True)
class Configured:
    settings: Settings
    origins: Mapping[str, str]  # of each setting that is not its default, as people write it

    def as_toml(self) -> str:
        """A file for --config that says the same, and where each value came from."""
        lines = [self._line(name) for name in Settings.model_fields if name not in NOT_IN_FILES]
        return "\n".join(lines) + "\n"

    def warn_of_unknown_variables(self) -> None:
        known = {PREFIX + name.upper() for name in Settings.model_fields} | CLIENT_VARIABLES
        for name in sorted(set(os.environ) - known):
            if name.startswith(PREFIX):
                nearest = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {nearest[0]}?" if nearest else ""
                logger.warning("the variable %s is none of the gateway's%s", name, hint)

    def _line(self, name: str) -> str:
        value, origin = getattr(self.settings, name), self.origins.get(name, "default")
        if value is None:
            return f"# {name} is not set"
        return f"{name} = {toml_value(value)}  # {origin}"


def read(arguments: Sequence[str]) -> Configured:
    """
    Raises:
        WrongSettings: a setting is unknown, or its value is not allowed.
        SystemExit: --help was printed, or a flag is unknown.
    """
    try:
        flags = CliSettingsSource(Settings, cli_parse_args=list(arguments))()
        variables = EnvSettingsSource(Settings)()
    except SettingsError as error:
        raise WrongSettings([str(error)]) from error
    file = read_file(flags.get("config") or variables.get("config"))
    given = {**file.values, **variables, **flags}
    origins = {
        **{name: f"{file.path}: {name}" for name in file.values},
        **{name: PREFIX + name.upper() for name in variables},
        **{name: "--" + name.replace("_", "-") for name in flags},
    }
    try:
        return Configured(Settings.model_validate(given), origins)
    except ValidationError as invalid:
        raise WrongSettings([told(fault, origins) for fault in invalid.errors()]) from invalid


@dataclass(frozen=True)
class File:
    path: Path | None
    values: dict[str, Any]


def read_file(path: str | None) -> File:
    if path is None:
        return File(None, {})
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise WrongSettings([f"--config {path} cannot be read: {error.strerror}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WrongSettings([f"--config {path} is not TOML: {error}"]) from error
    wrong = [name for name in values if name not in Settings.model_fields or name in NOT_IN_FILES]
    if wrong:
        raise WrongSettings([f"{path}: {unknown(name)}" for name in wrong])
    return File(Path(path), values)


def unknown(name: str) -> str:
    nearest = difflib.get_close_matches(name, Settings.model_fields, n=1)
    return f"{name} is no setting" + (f"; did you mean {nearest[0]}?" if nearest else "")


def told(fault: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    name = str(fault["loc"][0]) if fault["loc"] else "settings"
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{origins.get(name, name)}: {message}, got {fault['input']!r}"


def toml_value(value: object) -> str:
    """JSON's notation of text, numbers, booleans and lists is TOML's. Passwords are masked."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return re.sub(r"(?<=://)[^/@\s]+(?=@)", "***", text)
