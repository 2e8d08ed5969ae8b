"""How log lines look: text for people at a terminal, one JSON object a line elsewhere."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Literal

# What a record always has; anything else came through `extra` and is part of the message.
STANDARD_FIELDS = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def set_up(log_format: Literal["auto", "text", "json"], level: str) -> None:
    is_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if is_json else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # It tells of its own start and end; the gateway tells of its.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # What is wrong with an image is told to the client who sent it.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)


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
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={value}" for name, value in extra_fields(record).items())
        return f"{super().format(record)}  {fields}".rstrip()
