from __future__ import annotations

from pathlib import Path

import pytest
import typer

from server.main import read_settings


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOY_MAX_IN_FLIGHT", "7")
    monkeypatch.setenv("CONVOY_HTTP_ADDRESS", "127.0.0.1:9000")
    settings = read_settings(["--http-address", "127.0.0.1:9001"])
    assert (settings.max_in_flight, settings.http_address) == (7, "127.0.0.1:9001")


def test_models_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings(["--models", "lenet5, resnet152"]).models == ["lenet5", "resnet152"]
    monkeypatch.setenv("CONVOY_MODELS", "lenet5")
    assert read_settings([]).models == ["lenet5"]


def test_the_repository_is_the_checkouts_unless_told(tmp_path: Path) -> None:
    assert read_settings([]).repository.name == "model_repository"
    assert read_settings(["--repository", str(tmp_path)]).repository == tmp_path


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--max-in-flight", "0"], "--max-in-flight: Input should be greater than 0, got '0'"),
        (["--http-address", "8080"], "--http-address: Value error, must be HOST:PORT"),
        (["--runner", "tritn"], "--runner: Input should be 'in-process' or 'triton-local'"),
        (["--colour", "red"], "--colour"),
    ],
)
def test_a_wrong_value_is_one_line_and_exit_code_2(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((typer.Exit, SystemExit)) as end:
        read_settings(arguments)
    assert getattr(end.value, "exit_code", None) == 2 or getattr(end.value, "code", None) == 2
    message = capsys.readouterr().err
    assert told in message
    assert "Traceback" not in message
