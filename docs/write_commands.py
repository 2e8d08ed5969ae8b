"""Writes docs/commands.md from the commands' own help, so that the two always agree.

python docs/write_commands.py           writes the page
python docs/write_commands.py --print   prints what it would write; a test compares the two
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

# The layout of help, the same on every machine; typer reads it when it is imported.
os.environ |= {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"}

from convoy.cli import add_commands, app

PAGE = Path(__file__).with_name("commands.md")
COMMANDS = (
    *("", "classify", "models", "serve", "build", "adopt", "verify", "evaluate", "doctor"),
    *("rollback", "restore", "remove", "train", "describe", "compare"),
)

HEAD = """\
# Commands

Written by `make docs` from each command's own `--help`.
"""


def run_help(command: str) -> str:
    shown = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown):
            app([*command.split(), "--help"], prog_name="convoy")
    except SystemExit as ended:  # as a command ends
        if ended.code:
            raise
    return "\n".join(line.rstrip() for line in shown.getvalue().strip().splitlines())


def page() -> str:
    add_commands("")
    sections = [HEAD]
    for command in COMMANDS:
        title = f"convoy {command}".strip()
        sections.append(f"## {title}\n\n```\n{run_help(command)}\n```\n")
    return "\n".join(sections)


if __name__ == "__main__":
    if sys.argv[1:] == ["--print"]:
        print(page(), end="")
    else:
        PAGE.write_text(page(), encoding="utf-8")
