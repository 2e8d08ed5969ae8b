"""The runner on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.errors import StartFailed
from server.runners.local import check_repository


def test_a_repository_that_cannot_be_read_is_told_from_one_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="there is no model repository"):
        check_repository(tmp_path / "missing")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)  # root may read what it likes, but not that
    with pytest.raises(StartFailed, match="cannot be read: Too many levels"):
        check_repository(loop)
