"""Text for terminals and pipes: it controls no terminal, and printing never ends what is done.

A character that the output cannot show is replaced. A reader that leaves (`| head`) misses the
rest, and the exit code is that of the work. What cannot be written for another reason, such as a
full disk, is reported at the end, with exit code 1.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

JOINERS = "\u200c\u200d"  # zero-width, and part of words in Persian, Hindi and others

# ------------------------------------------------------------------------------ what is printed


def printable(text: str) -> str:
    """Replaces what could control a terminal: the text is somebody else's, and one line."""
    return "".join(
        char
        if char.isprintable() or char in JOINERS
        else " "
        if char.isspace()
        else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )


def print_error(message: object) -> None:
    """Writes one line to standard error."""
    print(printable(str(message)), file=sys.stderr)


# ------------------------------------------------------------------------------ where it goes


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Standard output and error take everything while this lasts.

    Raises:
        SystemExit: with 1, at the end, if standard output could not be written.
    """
    before = sys.stdout, sys.stderr
    output = LastingStream(sys.stdout)
    sys.stdout = output.as_text(errors="replace")
    sys.stderr = LastingStream(sys.stderr).as_text(errors="backslashreplace")
    try:
        yield
    finally:
        sys.stdout.flush()
        if output.error and output.error.errno != errno.EPIPE:
            print_error(f"standard output cannot be written: {output.error.strerror}")
            raise SystemExit(1)
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


class LastingStream(io.RawIOBase):
    """Drops what its stream does not take, and keeps the first reason."""

    def __init__(self, stream: TextIO | None) -> None:
        if stream is None:  # it was closed when the process began
            stream = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - kept open
        self._stream = stream
        self._raw = getattr(stream.buffer, "raw", stream.buffer)  # a buffer keeps what failed
        self._encoding, self._is_by_line = stream.encoding, bool(stream.line_buffering)
        self.error: OSError | None = None

    def as_text(self, errors: str) -> io.TextIOWrapper:
        return io.TextIOWrapper(
            io.BufferedWriter(self), self._encoding, errors, line_buffering=self._is_by_line
        )

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self._raw.fileno())

    def isatty(self) -> bool:
        return bool(self._raw.isatty())

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            while (written := self._raw.write(data)) is None:  # it does not block, and is full
                select.select([], [self._raw], [])
        except OSError as error:
            self.error = self.error or error
            return memoryview(data).nbytes
        return int(written)
