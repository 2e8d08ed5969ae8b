"""What a network is given of a picture by the gateway's own preparation, asked for as a process.

export/ and server/ do not import each other; where a build must know exactly what will be served,
it asks the gateway's code as any other program may.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from google.protobuf import json_format

from convoy.v1 import classifier_pb2 as pb
from export.errors import ExportError
from export.samples.images import Pixels

ROOT = Path(__file__).resolve().parents[2]


def prepared(pictures: Sequence[bytes], preprocessing: pb.Preprocessing) -> list[Pixels | None]:
    """The network's input for each encoded picture, H×W×C; None where the gateway refuses it.

    Raises:
        ExportError: the gateway's code does not run here.
    """
    with tempfile.TemporaryDirectory(prefix="convoy-prepare-") as folder:
        for number, picture in enumerate(pictures):
            Path(folder, f"{number:06}").write_bytes(picture)
        command = [sys.executable, "-m", "server.preprocessing"]
        done = subprocess.run(
            [*command, json_format.MessageToJson(preprocessing), folder],
            cwd=ROOT,
            capture_output=True,
            check=False,
        )
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise ExportError(f"The gateway's preparation does not run here: {''.join(reason)}")
    with np.load(io.BytesIO(done.stdout)) as arrays:
        found = dict(arrays)
    return [found.get(f"{number:06}") for number in range(len(pictures))]
