"""How log lines look and leave: text at a terminal, otherwise one JSON object per line.

A separate thread formats and writes what is logged. If standard error is slow, stopped or full,
lines are lost and counted, but nothing else waits.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import sys
import textwrap
import threading
import time
from typing import Any, Literal

# What every record has; other fields came through `extra` and are part of the message.
STANDARD_FIELDS = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
# Line ends, escape sequences of terminals, marks that change the direction of writing, and bytes of
# file names that are no UTF-8.
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
STANDARD_ERROR = 2
# At 2 kB per record, 20 MB wait for a reader that has stopped.
MAX_WAITING_LINES = 10_000
# Waking the writer for each of many lines, or the kernel, would cost more than writing them.
PAUSE_S = 0.01
LINES_AT_ONCE = 64
FLUSH_TIMEOUT_S = 1.0
to_json = json.JSONEncoder(default=str).encode  # json.dumps would make an encoder for each line


def set_up(log_format: Literal["auto", "text", "json"], level: str) -> None:
    is_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    handler = LineHandler(STANDARD_ERROR)
    handler.setFormatter(JsonFormatter() if is_json else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    skip_unused_fields()
    # It logs its own start and end; the gateway logs those that matter.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # One line per batch that a collector rejects, instead of one per span.
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    # A client learns from its answer what is wrong with its image.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    logging.getLogger("grpc._cython.cygrpc").addFilter(is_fault)


def is_fault(record: logging.LogRecord) -> bool:
    """Not that a call ended, by its deadline, while gRPC sent its answer: that is the client's."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__name__ != "ExecuteBatchError"  # a private class


def skip_unused_fields() -> None:
    """As "Optimization" in Python's "Logging HOWTO": no line says where it was logged."""
    vars(logging)["_srcfile"] = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def lost_lines() -> int:
    """Lines since the start that could not be written, or met a full queue."""
    handlers = logging.getLogger().handlers
    return sum(handler.lost_lines for handler in handlers if isinstance(handler, LineHandler))


class LineHandler(logging.Handler):
    """Writes whole lines to a file descriptor; logging never blocks or fails.

    The standard library's QueueListener could wait for its reader forever when it stops.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._waiting = queue.SimpleQueue[logging.LogRecord | None]()  # None: the end
        self._is_line_cut = False
        self.lost_lines = 0
        self._writer = threading.Thread(target=self._write_lines, name="log", daemon=True)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        if self._waiting.qsize() < MAX_WAITING_LINES:
            self._waiting.put(record)
        else:
            self.lost_lines += 1

    def close(self) -> None:
        """Writes what waits, within 1 s. The logging module calls it when the process ends."""
        self._waiting.put(None)
        self._writer.join(FLUSH_TIMEOUT_S)
        super().close()

    def _write_lines(self) -> None:
        while records := self._take():
            lines = [line for record in records if (line := self._to_line(record))]
            try:
                self._write(lines)
            except OSError:  # the file takes no more
                self.lost_lines += len(lines)
            if self._waiting.empty():
                time.sleep(PAUSE_S)

    def _take(self) -> list[logging.LogRecord]:
        """Waits for a record, and takes what waits behind it; nothing at the end."""
        records = []
        while record := self._waiting.get():
            records.append(record)
            if len(records) == LINES_AT_ONCE or self._waiting.empty():
                return records
        if records:
            self._waiting.put(None)  # for the next time
        return records

    def _to_line(self, record: logging.LogRecord) -> bytes | None:
        try:
            return f"{self.format(record)}\n".encode(errors="backslashreplace")
        except Exception:  # the arguments do not fit the message
            self.lost_lines += 1
            return None

    def _write(self, lines: list[bytes]) -> None:
        """Takes out of the list what is written, also where the rest fails."""
        if self._is_line_cut and lines:
            lines[0] = b"\n" + lines[0]
        while lines:
            n_bytes = os.writev(self._descriptor, lines)
            while lines and n_bytes >= len(lines[0]):
                n_bytes -= len(lines.pop(0))
            self._is_line_cut = n_bytes > 0
            if n_bytes:
                lines[0] = lines[0][n_bytes:]


def extra_fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in STANDARD_FIELDS}


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **extra_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return to_json(line)


class TextFormatter(logging.Formatter):
    """One line per record; text from clients can neither end it nor move the cursor."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        fields = " ".join(f"{name}={value}" for name, value in extra_fields(record).items())
        return escaped(f"{super().formatMessage(record)}  {fields}".rstrip())

    def formatException(self, ei: Any) -> str:  # noqa: N802
        lines = super().formatException(ei).split("\n")
        return textwrap.indent("\n".join(map(escaped, lines)), "    ")


def escaped(text: str) -> str:
    return CONTROL_CHARACTERS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
