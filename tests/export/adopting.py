"""`convoy adopt` as tests run it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import typer
from typer.testing import CliRunner

from export.adopt import adopt


def adopt_in(repository: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command in this process, which has imported torch already."""
    app = typer.Typer()
    app.command()(adopt)
    environment = {"CONVOY_REPOSITORY": str(repository), "COLUMNS": "200"}
    runner = CliRunner(env=environment)
    ended = runner.invoke(app, [*map(str, arguments)], catch_exceptions=False)
    return subprocess.CompletedProcess(
        arguments, ended.exit_code, stdout=ended.stdout, stderr=ended.stderr
    )
