"""Runs the gateway's own preprocessing on pictures, in a process.

export/ and server/ do not import each other. Where a build must know exactly what the network will
receive, it runs `python -m server.preprocessing`, as any other program can.
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
from export.files import ROOT
from export.samples.images import Pixels


def prepare(pictures: Sequence[bytes], preprocessing: pb.Preprocessing) -> list[Pixels | None]:
    """Returns the network's input for each encoded picture, H×W×C; None where the gateway rejects
    it.

    Raises:
        ExportError: the gateway's preprocessing failed to run.
    """
    with tempfile.TemporaryDirectory(prefix="convoy-prepare-") as folder:
        for number, picture in enumerate(pictures):
            Path(folder, f"{number:06}").write_bytes(picture)
        command = [sys.executable, "-m", "server.preprocessing"]
        process = subprocess.run(
            [*command, json_format.MessageToJson(preprocessing), folder],
            cwd=ROOT,
            capture_output=True,
            check=False,
        )
    if process.returncode:
        reason = process.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise ExportError(f"The gateway's preprocessing failed to run: {''.join(reason)}")
    with np.load(io.BytesIO(process.stdout)) as archive:
        inputs = dict(archive)
    return [inputs.get(f"{number:06}") for number in range(len(pictures))]
