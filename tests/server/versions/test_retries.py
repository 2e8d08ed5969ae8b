"""When a version that failed is tried again."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.runners.in_process import InProcessRunner
from server.versions.retries import Retries


@pytest.mark.parametrize("is_hung", [False, True])
async def test_one_that_hangs_is_tried_again_only_once_its_files_have_changed(
    repository: Path, monkeypatch: pytest.MonkeyPatch, is_hung: bool
) -> None:
    monkeypatch.setattr("server.versions.retries.INITIAL_BACKOFF_S", 0.0)
    runner, retries = InProcessRunner(repository), Retries("lenet5.v1")
    await retries.begin(runner)
    retries.failed(is_hung=is_hung)
    assert await retries.is_due(runner) != is_hung
    with (repository / "lenet5.v1" / "labels.txt").open("a") as file:
        file.write("another\n")
    assert await retries.is_due(runner)
