"""Flags over variables over a file over defaults, and what is said of a wrong one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from server.serve_options import parse_flags
from server.settings import Settings
from server.settings_sources import ResolvedSettings, WrongSettings, read


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "convoy.toml"
    path.write_text('max_in_flight = 7\nmodels = ["lenet5"]\nlog_level = "debug"\n')
    return path


def convoy_serve(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`convoy serve` in a process of its own."""
    command = [sys.executable, "-m", "convoy.cli", "serve", *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_flags_win_over_variables_over_the_file(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVOY_CONFIG", str(config))
    monkeypatch.setenv("CONVOY_LOG_LEVEL", "warning")
    monkeypatch.setenv("CONVOY_HTTP_ADDRESS", "127.0.0.1:9000")
    settings = read(parse_flags(["--http-address", "127.0.0.1:9001"])).settings
    assert settings.http_address == "127.0.0.1:9001"
    assert settings.log_level == "warning"
    assert settings.max_in_flight == 7
    assert settings.max_image_pixels == Settings.model_fields["max_image_pixels"].default


def test_the_file_of_a_flag_wins_over_that_of_the_variable(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVOY_CONFIG", "/nowhere.toml")
    assert read(parse_flags(["--config", str(config)])).settings.max_in_flight == 7


def test_models_are_separated_by_commas_or_a_list(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read(parse_flags(["--models", "lenet5, resnet152"])).settings.models == [
        "lenet5",
        "resnet152",
    ]
    assert read(parse_flags(["--config", str(config)])).settings.models == ["lenet5"]
    monkeypatch.setenv("CONVOY_MODELS", "lenet5,nin_digits")
    assert read({}).settings.models == ["lenet5", "nin_digits"]


def test_the_repository_is_the_checkouts_unless_told(tmp_path: Path) -> None:
    assert read({}).settings.repository.name == "model_repository"
    assert read(parse_flags(["--repository", str(tmp_path)])).settings.repository == tmp_path


@pytest.mark.parametrize(
    ("arguments", "variables", "file", "told"),
    [
        (
            ["--max-in-flight", "0"],
            {},
            "",
            "--max-in-flight: Input should be greater than 0, got '0'",
        ),
        (["--http-address", "8080"], {}, "", "--http-address: must be HOST:PORT"),
        (["--runner", "tritn"], {}, "", "--runner: Input should be 'in-process' or 'triton-local'"),
        (
            [],
            {"CONVOY_LOG_LEVEL": "loud"},
            "",
            "CONVOY_LOG_LEVEL: Input should be 'debug', 'info', 'warning' or 'error', got 'loud'",
        ),
        (
            ["--otlp-endpoint", "ftp://me:secret@127.0.0.1"],
            {},
            "",
            "--otlp-endpoint: must begin with http:// or https://, got 'ftp://***@127.0.0.1'",
        ),
        (
            ["--otlp-endpoint", "http://me:se/cr@et@127.0.0.1"],
            {},
            "",
            "must be a URL, with / ? # @ of a password as %2F %3F %23 %40, got 'http://***@127",
        ),
        ([], {}, "max_in_flight = 0", "max_in_flight: Input should be greater than 0, got 0"),
        ([], {}, "max_inflight = 9", "unknown setting max_inflight; did you mean max_in_flight?"),
        ([], {}, "config = 'other.toml'", "unknown setting config"),
        ([], {}, "max_in_flight = ", "is not valid TOML"),
    ],
    ids=[
        "number",
        "address",
        "choice",
        "variable",
        "scheme",
        "URL",
        "in file",
        "unknown",
        "nested",
        "no TOML",
    ],
)
def test_a_wrong_value_is_told_as_it_was_written(
    arguments: list[str],
    variables: dict[str, str],
    file: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "convoy.toml"
    path.write_text(file)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(WrongSettings) as wrong:
        read(parse_flags([f"--config={path}", *arguments]))
    (line,) = wrong.value.lines
    assert told in line
    assert not file or str(path) in line


def test_a_file_that_is_not_there_is_told() -> None:
    with pytest.raises(WrongSettings, match=r"--config /nowhere.toml cannot be read: No such file"):
        read(parse_flags(["--config", "/nowhere.toml"]))


def test_the_command_tells_in_one_line_and_ends_with_2(tmp_path: Path) -> None:
    ended = convoy_serve("--max-in-flight", "0")
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "convoy serve: --max-in-flight: Input should be greater than 0, got '0'"
    ]
    unknown = convoy_serve("--colour", "red")
    assert unknown.returncode == 2
    assert "--colour" in unknown.stderr and "Traceback" not in unknown.stderr


def test_the_configuration_shown_is_a_file_that_says_the_same(config: Path, tmp_path: Path) -> None:
    shown = convoy_serve(
        f"--config={config}",
        "--otlp-endpoint=http://me:secret@127.0.0.1:4317",
        "--show-config",
        CONVOY_MAX_BATCH_REQUESTS="3",
    )
    assert shown.returncode == 0
    lines = shown.stdout.splitlines()
    assert f"max_in_flight = 7  # {config}: max_in_flight" in lines
    assert "max_batch_requests = 3  # CONVOY_MAX_BATCH_REQUESTS" in lines
    assert "keep_loaded = 1  # default" in lines
    assert "# tls_key is not set" in lines
    assert 'otlp_endpoint = "http://***@127.0.0.1:4317"  # --otlp-endpoint' in lines
    assert "secret" not in shown.stdout
    again = tmp_path / "again.toml"
    again.write_text(shown.stdout)
    second = read(parse_flags([f"--config={again}"]))
    assert tomllib.loads(second.as_toml()) == tomllib.loads(shown.stdout)


def test_a_variable_that_is_misspelt_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CONVOY_MAX_INFLIGHT", "9")
    monkeypatch.setenv("CONVOY_API_KEY", "of the client")
    ResolvedSettings(read({}).settings, {}).warn_of_unknown_variables()
    assert [record.getMessage() for record in caplog.records] == [
        "unknown variable CONVOY_MAX_INFLIGHT; did you mean CONVOY_MAX_IN_FLIGHT?"
    ]


# ---------------------------------------------------------------- how they are shown


def test_help_spells_out_choices_and_leaves_out_what_hardly_anybody_sets() -> None:
    shown = convoy_serve("--help", TERMINAL_WIDTH="120", NO_COLOR="1").stdout
    assert "in-process|triton-local" in shown
    assert "debug|info|warning|error" in shown
    assert "convoy serve --models lenet5,resnet152" in shown, "an example"
    assert "list[str]" not in shown
    hidden = {
        name
        for name in Settings.model_fields
        if not re.search(rf"--{name.replace('_', '-')}\s", shown)
    }
    assert hidden == {
        "body_timeout_s",
        "header_timeout_s",
        "max_concurrent_streams",
        "max_header_bytes",
        "min_body_bytes_per_s",
        "staged",
        "unload_grace_s",
        "worker_timeout_s",
    }


def test_a_setting_that_is_not_shown_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOY_BODY_TIMEOUT_S", "2")
    settings = read(parse_flags(["--header-timeout-s", "3"])).settings
    assert (settings.body_timeout_s, settings.header_timeout_s) == (2.0, 3.0)


def test_a_flag_switches_off_what_a_variable_switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOY_ALLOW_UNAUTHENTICATED", "true")
    assert read({}).settings.allow_unauthenticated
    flags = parse_flags(["--no-allow-unauthenticated"])
    assert not read(flags).settings.allow_unauthenticated
