"""What the process of each command begins with."""

from __future__ import annotations

import atexit
import contextlib
import gc
from collections.abc import Iterator

from convoy.terminal import lasting_output


@contextlib.contextmanager
def command_process() -> Iterator[None]:
    """Its output lasts, and its end is quick: Python would look for garbage among all that was
    imported, which takes half a second with torch.

    Raises:
        SystemExit: as `lasting_output` does.
    """
    atexit.register(gc.freeze)
    with lasting_output():
        yield
