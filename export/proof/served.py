"""The last rung of the ladder: the file against itself behind the gateway.

Pictures are made so that the gateway's input must be, to the last grey level, one that is known
here: photos as PNG whose shorter side is already what a photo is resized to, so that cropping is
all that is left; digits drawn on a page, of which the gateway's own preparation is asked. So the
rung is tight, and a crop that is off by one pixel, mixed channels or mixed labels all show. Where a
GPU computes in fp16 or int8 it is as wide as that rounding.

A build asks a private gateway, a process of its own on unix sockets, over the staged folder alone.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from convoy import Client
from convoy.errors import ConvoyError, NotFound, Unavailable
from convoy.v1 import classifier_pb2 as pb
from export.catalog import find
from export.errors import ParityError, ServedError
from export.proof.golden import cropped, drawn
from export.proof.parity import Answer, Probabilities, at_each_batch_size, judged
from export.samples.gateway_preprocessing import ROOT, prepared
from export.samples.images import PHOTOS, SERVED_SEED, Pixels, digits, photo

COUNT = 8
START_TIMEOUT_S, ANSWER_TIMEOUT_S = 180.0, 120.0
ENDED_LOG_LINES = 3


@dataclass(frozen=True)
class Pictures:
    names: tuple[str, ...]
    contents: tuple[bytes, ...]  # encoded, as a client sends them
    pixels: Pixels  # N×H×W×C, what the gateway must make of them


def pictures(preprocessing: pb.Preprocessing) -> Pictures:
    """Eight of them, the same each time.

    Raises:
        ParityError: the gateway's preparation refuses every digit.
    """
    if preprocessing.WhichOneof("kind") == "digit":
        return _digits(preprocessing)
    return _photos(preprocessing.photo)


def _photos(transform: pb.Photo) -> Pictures:
    """Parts of the two photos, wide and tall in turn, and never of a length that halves evenly."""
    random = np.random.default_rng(SERVED_SEED)
    names, contents = [], []
    for number in range(COUNT):
        name = PHOTOS[number % 2]
        short, long = transform.resize, transform.resize + 13 + 8 * number
        size = (long, short) if number % 4 < 2 else (short, long)
        whole = photo(name)
        left, top = (int(random.integers(side // 4)) for side in whole.size)
        box = (left, top, whole.width, whole.height)
        content = io.BytesIO()
        whole.resize(size, Image.Resampling.BILINEAR, box=box).save(content, "PNG")
        names.append(f"{name} {size[0]}x{size[1]} from {left},{top}")
        contents.append(content.getvalue())
    pixels = np.stack([cropped(content, transform) for content in contents])
    return Pictures(tuple(names), tuple(contents), pixels)


def _digits(preprocessing: pb.Preprocessing) -> Pictures:
    held_out = digits(2 * COUNT, SERVED_SEED)
    pages = [drawn(plane) for plane in held_out.pixels]
    found = [
        (name, page, pixels)
        for name, page, pixels in zip(
            held_out.names, pages, prepared(pages, preprocessing), strict=True
        )
        if pixels is not None
    ][:COUNT]
    if not found:
        raise ParityError(f"The gateway's preparation refuses all of {len(pages)} drawn digits.")
    names, contents, planes = zip(*found, strict=True)
    return Pictures(names, contents, np.stack(planes))


# ------------------------------------------------------------------------------ asking a gateway


class ServedAnswer:
    """What a gateway answers for encoded pictures; those of a batch are sent at once."""

    def __init__(self, client: Client, model: pb.Model) -> None:
        self._client = client
        self._model = model
        self.batch_sizes: set[int] = set()  # how many images rode together, of all answers
        self.devices: set[str] = set()  # where they were computed

    def __call__(self, contents: Sequence[bytes]) -> Probabilities:  # to N×K
        with ThreadPoolExecutor(len(contents)) as threads:
            return np.stack(list(threads.map(self._one, contents)))

    def _one(self, content: bytes) -> Probabilities:  # K
        model, labels = self._model, self._model.labels
        answer = self._client.classify(
            content, model=model.name, version=model.version, top_k=len(labels)
        )
        if answer.manifest_digest != model.manifest_digest:
            raise ParityError(
                f"{model.name} version {model.version} answered as manifest "
                f"{answer.manifest_digest[:12]}, and {model.manifest_digest[:12]} was asked for."
            )
        self.batch_sizes.add(answer.batch_size)
        self.devices.add(answer.device)
        probabilities = np.full(len(labels), np.nan, dtype=np.float32)
        for found in answer.classes:
            if found.label != labels[found.index].name:
                raise ParityError(
                    f"The gateway calls class {found.index} {found.label!r}, the model "
                    f"{labels[found.index].name!r}."
                )
            probabilities[found.index] = found.score
        return probabilities


def served_rung(
    client: Client,
    model: pb.Model,  # with the name and the version that the gateway knows it by
    reference: Answer,
    reference_name: str,
    *,
    max_batch_size: int,
) -> pb.ParityRung:
    """
    Raises:
        ParityError: what is served is not what the file answers; the message names the image.
        ServedError: the gateway does not answer.
    """
    asked = pictures(model.preprocessing)
    answer = ServedAnswer(client, model)
    try:
        answers = at_each_batch_size(answer, asked.contents, max_batch_size)
    except ConvoyError as error:
        raise ServedError(f"The gateway refused a picture of the ladder: {error}") from error
    rung = judged(
        f"{reference_name} → served",
        reference(asked.pixels),
        answers,
        asked.names,
        allowed(model.manifest, answer.devices),
    )
    rung.batch_sizes_seen.extend(sorted(answer.batch_sizes))
    return rung


def allowed(manifest: pb.Manifest, devices: set[str]) -> float:
    """The largest difference of a probability.

    What is compared with is computed on the CPU, but for a plan, and a GPU rounds less than fp32 in
    ways of its own, as an engine does.
    """
    elsewhere = "gpu" in devices and manifest.format != "plan" and manifest.precision != "fp32"
    network = find(manifest.network)
    return network.engine_tolerance if elsewhere else network.served_tolerance


# ------------------------------------------------------------------------------ a private gateway


@contextlib.contextmanager
def private_gateway(
    folder: Path, *, triton: str | None = None, root: Path = ROOT
) -> Iterator[Client]:
    """Serves the version in `folder`, NAME.vN.staging, to this process alone.

    In process, unless `triton` is the HOST:PORT of one that serves the folder's repository. `root`
    is the checkout whose gateway it is.

    Raises:
        ServedError: it did not start.
        ParityError: the version did not prove itself there.
    """
    with tempfile.TemporaryDirectory(prefix="convoy-") as place:  # short, as socket paths must be
        sockets = {door: f"unix:{place}/{door}" for door in ("http", "grpc", "metrics")}
        with (
            _process(folder, triton, sockets, Path(place, "log"), root) as process,
            Client(sockets["grpc"], timeout_s=ANSWER_TIMEOUT_S) as client,
        ):
            _wait_until_proven(client, folder.name, process, Path(place, "log"))
            yield client


@contextlib.contextmanager
def _process(
    folder: Path, triton: str | None, sockets: dict[str, str], log_path: Path, root: Path
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "convoy.cli", "serve", f"--staged={folder.name}"]
    command += [f"--triton={triton}"] if triton else [f"--repository={folder.parent}"]
    command += [f"--{door}-address={address}" for door, address in sockets.items()]
    # Settings that are meant for the user's own gateway are none of this one's.
    environment = {key: value for key, value in os.environ.items() if key[:7] != "CONVOY_"}
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*command, "--log-level=warning", "--log-format=text"],
            cwd=root,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _wait_until_proven(
    client: Client, folder: str, process: subprocess.Popen[bytes], log_path: Path
) -> None:
    name, deadline_s = folder.partition(".")[0], time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        with contextlib.suppress(Unavailable, NotFound):
            model = client.model(name)
            if model.state == pb.STATE_READY:
                return
            if model.state == pb.STATE_FAILED:
                raise ParityError(
                    f"{folder} does not prove itself behind the gateway: {model.state_reason}"
                )
        time.sleep(0.05)
    said = log_path.read_text(errors="replace").splitlines()[-ENDED_LOG_LINES:]
    raise ServedError(
        f"The private gateway did not serve {folder} within {START_TIMEOUT_S:.0f} s: "
        + (" / ".join(said) or "it said nothing.")
    )
