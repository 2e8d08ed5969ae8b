"""What every peer serves: a network in ONNX Runtime, and the preparation of its pictures.

Digits are prepared by the gateway's own code, so that the work is equal; photos by Pillow alone, as
examples of these frameworks do.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from google.protobuf import json_format
from PIL import Image

from convoy.v1 import classifier_pb2 as pb
from server.preprocessing import detail, prepare
from server.preprocessing.decode import decode

Pixels = npt.NDArray[np.uint8]  # H×W×C
Answer = dict[str, Any]

# How the benchmark configures a peer.
PORT, WORKERS, THREADS, MAX_BATCH, STAGES = (
    int(os.environ.get(f"PEER_{name}", "1"))
    for name in ("PORT", "WORKERS", "THREADS", "MAX_BATCH", "STAGES")
)
MAX_WAIT_MS = 5  # for the rest of a batch
HOST = "127.0.0.1"


class Network:
    """The exported graph, with the same options as in the gateway."""

    def __init__(self, threads: int = THREADS) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(
            os.environ["PEER_MODEL"], options, providers=["CPUExecutionProvider"]
        )
        self._options = ort.RunOptions()  # outputs for evidence are not computed
        self._options.only_execute_path_to_fetches = True

    def classify(self, images: Sequence[Pixels]) -> list[Answer]:
        """The best class of each image."""
        feed = {"image": np.stack(images)}
        (probabilities,) = self._session.run(["probabilities"], feed, self._options)
        best = probabilities.argmax(axis=1)
        return [
            {"index": int(index), "score": float(row[index])}
            for index, row in zip(best, probabilities, strict=True)
        ]


class Preparation:
    """From the bytes of a file to the network's input."""

    def __init__(self) -> None:
        self._facts = json_format.Parse(os.environ["PEER_PREPROCESSING"], pb.Preprocessing())

    def __call__(self, content: bytes) -> Pixels:
        if self._facts.HasField("photo"):
            return prepare_photo(content, self._facts.photo)
        image = decode(
            content,
            max_bytes=1 << 24,
            max_pixels=50_000_000,
            detail=detail(self._facts, is_exact=False),
        )
        return prepare(image.pixels, self._facts, (image.width, image.height))


def prepare_photo(content: bytes, photo: pb.Photo) -> Pixels:
    """The shorter side resized, the centre cut out."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    scale = photo.resize / min(image.size)
    size = int(image.width * scale), int(image.height * scale)
    left, top = (round((side - photo.crop) / 2) for side in size)
    box = (left, top, left + photo.crop, top + photo.crop)
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR).crop(box))
