"""Prepare images as the gateway does, for programs that may not import the gateway.

    python -m server.preprocessing '{"digit": {"size": 32, "box": 20}}' FOLDER > prepared.npz

The argument is a convoy.v1.Preprocessing as JSON. The archive holds one array, uint8, H×W×C, for
each file in the folder that a gateway with default limits accepts, under the file's name. The other
files are listed on stderr.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from google.protobuf import json_format

from convoy.v1 import classifier_pb2 as pb
from server.errors import ServingError
from server.preprocessing import detail, prepare
from server.preprocessing.decode import decode
from server.settings import Settings

MAX_BYTES: int = Settings.model_fields["max_image_bytes"].default
MAX_PIXELS: int = Settings.model_fields["max_image_pixels"].default


def main(preprocessing_json: str, folder: str) -> None:
    preprocessing = json_format.Parse(preprocessing_json, pb.Preprocessing())
    arrays = {}
    for path in sorted(Path(folder).iterdir()):
        try:
            image = decode(
                path.read_bytes(),
                max_bytes=MAX_BYTES,
                max_pixels=MAX_PIXELS,
                detail=detail(preprocessing, is_exact=False),
            )
            arrays[path.name] = prepare(image.pixels, preprocessing, (image.width, image.height))
        except ServingError as error:
            print(f"{path.name}: {error.message}", file=sys.stderr)
    archive = io.BytesIO()
    np.savez(archive, **arrays)  # type: ignore[arg-type]  # the stub takes the names to be options
    sys.stdout.buffer.write(archive.getvalue())


if __name__ == "__main__":
    main(*sys.argv[1:])
