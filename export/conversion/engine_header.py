"""The header of an engine file: the library that built it, and its version.

    bytes 0 to 3     ftrt: a plan of TensorRT, which Triton loads; vtrt: an engine of TensorRT-RTX
    bytes 24 to 27   major, minor, patch and build of the library

TensorRT loads only plans of its own version. The header exposes a wrong one before a server tries
to load it, and without TensorRT.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from export.errors import EngineError

Library = Literal["tensorrt", "tensorrt_rtx"]

LIBRARIES: dict[bytes, Library] = {b"ftrt": "tensorrt", b"vtrt": "tensorrt_rtx"}
VERSION = slice(24, 28)


@dataclass(frozen=True)
class EngineHeader:
    kind: Library
    version: str  # "10.16.1.11"


def read_header(path: Path) -> EngineHeader:
    """Reads the header of an engine file.

    Raises:
        EngineError: the file cannot be read, or is not an engine.
    """
    try:
        with path.open("rb") as file:
            header = file.read(VERSION.stop)
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror}.") from error
    kind = LIBRARIES.get(header[:4])
    if kind is None or len(header) < VERSION.stop:
        raise EngineError(
            f"{path} is not a TensorRT engine: its first bytes are {header[:4]!r}…, not those of "
            f"a plan (ftrt) or an RTX engine (vtrt); build it again."
        )
    return EngineHeader(kind, ".".join(str(number) for number in header[VERSION]))
