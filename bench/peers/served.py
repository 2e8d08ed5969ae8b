"""What is served: a network, its repository, and the files that are sent."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from google.protobuf import json_format
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

from bench.peers.environments import FOLDER, ROOT
from convoy.v1 import classifier_pb2 as pb
from server.preprocessing import detail, prepare
from server.preprocessing.decode import decode
from server.runners.base import parse_facts
from server.runners.version_files import CONFIG_FILE, MODEL_FILE, read_config

N_DIGITS = 10
PHOTO_SIZE = (500, 375)


@dataclass(frozen=True)
class Served:
    model: str
    repository: Path
    files: list[bytes]

    @property
    def folder(self) -> Path:
        """Of the version, in the repository."""
        return self.repository / f"{self.model}.v1"

    @property
    def graph(self) -> Path:
        return self.folder / MODEL_FILE

    @cached_property
    def preprocessing(self) -> pb.Preprocessing:
        return parse_facts(read_config(self.folder / CONFIG_FILE)).preprocessing

    @property
    def preprocessing_json(self) -> str:
        return json_format.MessageToJson(self.preprocessing, indent=None)

    def ready(self, content: bytes) -> npt.NDArray[np.uint8]:
        """The network's input, H×W×C, for servers that take tensors."""
        facts = self.preprocessing
        image = decode(
            content, max_bytes=1 << 24, max_pixels=1 << 26, detail=detail(facts, is_exact=False)
        )
        return prepare(image.pixels, facts, (image.width, image.height))


def lenet5() -> Served:
    """The shipped network, and digits of 28×28 pixels, as large in them as MNIST has them."""
    files = []
    for plane in load_digits().images[:N_DIGITS]:  # 8×8, 0 to 16; the first ones are 0 to 9
        square = Image.new("L", (28, 28))
        ink = Image.fromarray((plane * 255 / 16).astype(np.uint8))
        square.paste(ink.resize((20, 20), Image.Resampling.BICUBIC), (4, 4))
        files.append(encode(square, "PNG"))
    return Served("lenet5", ROOT / "model_repository", files)


def resnet50() -> Served:
    """Random weights cost the same as trained ones; it is built the first time (a minute)."""
    repository = FOLDER / "repository"
    if not (repository / "resnet50.v1").is_dir():
        build = [sys.executable, str(ROOT / "export" / "build.py"), "resnet50", "--weights=random"]
        subprocess.run([*build, f"--repository={repository}"], check=True)
    names = ("china.jpg", "flower.jpg")
    photos = [Image.fromarray(load_sample_image(name)).resize(PHOTO_SIZE) for name in names]
    return Served("resnet50", repository, [encode(photo, "JPEG") for photo in photos])


NETWORKS = {"lenet5": lenet5, "resnet50": resnet50}


def encode(image: Image.Image, file_format: str) -> bytes:
    content = io.BytesIO()
    options = {"quality": 90} if file_format == "JPEG" else {}
    image.save(content, file_format, **options)
    return content.getvalue()
