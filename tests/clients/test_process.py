"""What the process of a command begins with."""

from __future__ import annotations

import subprocess
import sys

COMMAND = """
import atexit, gc
from convoy.process import command_process

atexit.register(lambda: print(gc.get_freeze_count()))
with command_process():
    print(gc.isenabled(), gc.get_freeze_count())
"""


def test_at_the_end_nothing_is_searched_for_garbage() -> None:
    command = [sys.executable, "-c", COMMAND]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    while_it_ran, at_the_end = ended.stdout.splitlines()
    assert while_it_ran == "True 0"
    assert int(at_the_end) > 1000
