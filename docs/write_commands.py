"""Writes docs/commands.md from the commands' own help, so that the two always agree.

python docs/write_commands.py           writes the page
python docs/write_commands.py --print   prints what it would write; a test compares the two
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).with_name("commands.md")
COMMANDS = (
    *("", "classify", "models", "serve", "build", "adopt", "verify", "evaluate", "doctor"),
    *("rollback", "restore", "remove", "train", "describe", "compare"),
)
# The layout of help, the same on every machine.
LAYOUT = {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"}

HEAD = """\
# Commands

Written by `make docs` from each command's own `--help`.
"""


def run_help(command: str) -> str:
    words = [Path(sys.executable).with_name("convoy"), *command.split(), "--help"]
    environment = {**os.environ, **LAYOUT}
    process = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return "\n".join(line.rstrip() for line in process.stdout.strip().splitlines())


def page() -> str:
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
