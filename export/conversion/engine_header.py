"""What the first bytes of an engine say: which library built it, in which version.

    bytes 0 to 3     ftrt: a plan of TensorRT, which Triton loads; vtrt: an engine of TensorRT-RTX
    bytes 24 to 27   major, minor, patch and build of the library

TensorRT loads only plans of its own version, so a wrong one can be told before a server tries it.
Nothing but the file is needed for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from export.errors import EngineError

Library = Literal["tensorrt", "tensorrt_rtx"]

LIBRARY_OF_MAGIC: dict[bytes, Library] = {b"ftrt": "tensorrt", b"vtrt": "tensorrt_rtx"}
VERSION = slice(24, 28)


@dataclass(frozen=True)
class EngineHeader:
    kind: Library
    version: str  # "10.16.1.11"


def read_header(path: Path) -> EngineHeader:
    """What built the engine in the file.

    Raises:
        EngineError: it cannot be read, or has no engine in it.
    """
    try:
        with path.open("rb") as file:
            header = file.read(VERSION.stop)
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror}.") from error
    kind = LIBRARY_OF_MAGIC.get(header[:4])
    if kind is None or len(header) < VERSION.stop:
        raise EngineError(
            f"{path} is no TensorRT engine: its {len(header)} first bytes are {header[:4]!r}… and "
            f"not those of a plan (ftrt) or an RTX engine (vtrt); build it again."
        )
    return EngineHeader(kind, ".".join(str(number) for number in header[VERSION]))
