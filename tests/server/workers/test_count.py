"""How many workers serve."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from server.settings import Settings
from server.workers import count
from server.workers.count import count_workers, settings_of_worker


def settings(path: Path, **values: Any) -> Settings:
    return Settings.model_validate({"repository": path, **values})


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"http_address": "unix:/tmp/http"}, "unix socket"),
        ({"grpc_address": "unix:/tmp/grpc"}, "unix socket"),
        ({"runner": "triton-local"}, "Triton"),
    ],
)
def test_where_workers_cannot_share_there_is_one_and_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, values: dict[str, Any], reason: str
) -> None:
    assert count_workers(settings(tmp_path, workers=3, **values)) == 1
    (line,) = caplog.messages
    assert "in place of 3" in line and reason in line


def test_other_systems_have_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert count_workers(settings(tmp_path, workers=3)) == 3
    monkeypatch.setattr(sys, "platform", "darwin")
    assert count_workers(settings(tmp_path, workers=3)) == 1


@pytest.mark.parametrize(("cpus", "workers"), [(1, 1), (3, 1), (4, 2), (16, 8)])
def test_auto_follows_the_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpus: int, workers: int
) -> None:
    monkeypatch.setattr(count, "available_cpus", lambda: cpus)
    assert count_workers(settings(tmp_path, workers="auto")) == workers


def test_auto_loads_a_large_network_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count, "available_cpus", lambda: 16)
    file = tmp_path / "large.v1" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.touch()
    os.truncate(file, 50_000_001)
    assert count_workers(settings(tmp_path, workers="auto")) == 1
    assert count_workers(settings(tmp_path, workers="auto", triton="triton:8001")) == 8
    assert count_workers(settings(tmp_path, workers="auto", models="small")) == 8
    assert count_workers(settings(tmp_path, workers="auto", models="small,large")) == 1
    assert count_workers(settings(tmp_path, workers=2)) == 2


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", True])
def test_a_wrong_number_is_one_line(tmp_path: Path, value: object) -> None:
    with pytest.raises(ValidationError, match="a number from 1 on, or auto") as failure:
        settings(tmp_path, workers=value)
    assert failure.value.error_count() == 1


def test_threads_are_divided(tmp_path: Path) -> None:
    whole = settings(tmp_path, decode_threads=5, inference_threads=1)
    part = settings_of_worker(whole, 2, {"http_address": "127.0.0.1:1"})
    assert (part.decode_threads, part.inference_threads) == (2, 1)
    assert (part.http_address, part.grpc_address) == ("127.0.0.1:1", whole.grpc_address)
