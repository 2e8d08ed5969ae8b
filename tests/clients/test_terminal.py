"""What is printed controls no terminal, and no output ends what is done."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from convoy.terminal import printable

WORK = r"""
import sys
from pathlib import Path
from convoy.terminal import lasting_output, print_error

with lasting_output():
    print("3\u00d73 \u2192 \uc644\ub8cc", "x" * 100_000, flush=True)
    print("\udcb8", "y" * 100_000)
    print_error("\u00d7")
    Path(sys.argv[1]).touch()
    sys.exit(int(sys.argv[2]))
"""


def work(done: Path, code: int = 0, output: int = subprocess.PIPE, **variables: str) -> str:
    """Runs it with this standard output; returns its standard error, and checks its exit code."""
    ended = subprocess.run(
        [sys.executable, "-c", WORK, done, str(code)],
        stdout=output,
        stderr=subprocess.PIPE,
        env=os.environ | variables,
        check=False,
    )
    assert done.exists(), ended.stderr
    assert ended.returncode == code, ended.stderr
    return ended.stderr.decode(errors="replace")


@pytest.mark.parametrize("encoding", ["latin-1", "cp949", "ascii", "utf-8"])
def test_characters_that_an_output_lacks_are_replaced(tmp_path: Path, encoding: str) -> None:
    work(tmp_path / "done", PYTHONIOENCODING=encoding)


def test_a_posix_locale_takes_everything(tmp_path: Path) -> None:
    work(tmp_path / "done", LC_ALL="POSIX", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")


@pytest.mark.parametrize("code", [0, 3])
def test_a_reader_that_leaves_changes_no_exit_code(tmp_path: Path, code: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert work(tmp_path / "done", code, writing).strip() in ("×", "\\xd7")
    finally:
        os.close(writing)


def test_a_full_disk_is_reported_once_the_work_is_done(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full, pytest.raises(AssertionError, match="No space left"):
        work(tmp_path / "done", output=full.fileno())
    assert (tmp_path / "done").exists()


def test_an_output_that_was_never_open_is_no_error(tmp_path: Path) -> None:
    done = tmp_path / "done"
    command = [sys.executable, "-c", WORK, str(done), "0"]
    closed = ["/bin/sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command]
    assert subprocess.run(closed, check=False).returncode == 0 and done.exists()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("daisy", "daisy"),
        ("\x1b[2Jdaisy\r", "\ufffd[2Jdaisy "),
        ("\x9b31m\u202edaisy", "\ufffd31m\ufffddaisy"),
        ("two\nlines", "two lines"),
        ("گل\u200cها", "گل\u200cها"),
        ("\udcb8", "\ufffd"),
    ],
)
def test_text_of_others_controls_no_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown
