"""Tables for terminals and pipes, which need rich: commands that print none do not import it."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

from convoy.terminal import printable

PIPE_WIDTH = 160  # characters of a line that goes into a file or a pipe


def plain_console(soft_wrap: bool = False) -> Console:
    """Prints text without markup; lines in a pipe are not folded to 80 characters."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, markup=False, emoji=False, highlight=False, soft_wrap=soft_wrap)


class PlainTable(Table):
    """A table whose cells are text that somebody else may have written."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        shown = (printable(cell) if isinstance(cell, str) else cell for cell in cells)
        super().add_row(*shown, **options)
