"""What a network is given of images, for programs that may not import the gateway.

    python -m server.preprocessing '{"digit": {"size": 32, "box": 20}}' FOLDER > prepared.npz

The argument is the JSON of a convoy.v1.Preprocessing. For each file of the folder that the gateway
would accept, the archive holds an array of its name: uint8, H×W×C. The others are named on stderr.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from google.protobuf import json_format

from convoy.v1 import classifier_pb2 as pb
from server.errors import ServingError
from server.preprocessing import prepare
from server.preprocessing.decode import decode

MAX_BYTES = 16 << 20
MAX_PIXELS = 50_000_000


def main(preprocessing_json: str, folder: str) -> None:
    preprocessing = json_format.Parse(preprocessing_json, pb.Preprocessing())
    arrays = {}
    for path in sorted(Path(folder).iterdir()):
        try:
            image = decode(path.read_bytes(), max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)
            arrays[path.name] = prepare(image.pixels, preprocessing)
        except ServingError as error:
            print(f"{path.name}: {error.message}", file=sys.stderr)
    archive = io.BytesIO()
    np.savez(archive, **arrays)  # type: ignore[arg-type]  # the stub takes the names for options
    sys.stdout.buffer.write(archive.getvalue())


if __name__ == "__main__":
    main(*sys.argv[1:])
