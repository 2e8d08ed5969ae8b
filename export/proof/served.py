"""The last rung of the ladder: the file is compared with itself behind the gateway.

The pictures are such that the gateway's input is known here to the last grey level. Photos are PNG
files that already have the size to which they are resized, so that the gateway only crops and pads.
Digits are drawn on a page, and the gateway's own preprocessing is asked for the input. So the rung
is tight, and it exposes a crop that is off by one pixel, mixed channels or mixed labels. Where a
GPU computes in fp16 or int8, it is as wide as that rounding.

A build asks a private gateway (private_gateway.py).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from convoy import Client
from convoy.errors import ConvoyError
from convoy.v1 import classifier_pb2 as pb
from export.catalog import CATALOG, Network
from export.errors import ParityError, ServedError
from export.preparation.reference import reference_pixels
from export.proof.golden import draw_page
from export.proof.parity import answer_batches, answer_in_batches, judge
from export.proof.runtimes import Runtime
from export.proof.served_evidence import compare_served_evidence
from export.samples.gateway_preprocessing import prepare
from export.samples.images import (
    PHOTOS,
    SERVED_SEED,
    Pixels,
    Probabilities,
    digits,
    photo,
)

COUNT = 8  # pictures


@dataclass(frozen=True)
class Pictures:
    names: tuple[str, ...]
    contents: tuple[bytes, ...]  # encoded, as a client sends them
    pixels: Pixels  # N×H×W×C, as the gateway must preprocess them


def pictures(preprocessing: pb.Preprocessing) -> Pictures:
    """Returns eight pictures, the same each time.

    Raises:
        ParityError: the gateway's preprocessing rejects every digit.
    """
    if preprocessing.WhichOneof("kind") == "digit":
        return _digits(preprocessing.SerializeToString())
    return _photos(preprocessing.photo)


def _photos(transform: pb.Photo) -> Pictures:
    """Returns parts of the two photos, wide and tall in turn; offsets are often half pixels."""
    random = np.random.default_rng(SERVED_SEED)
    names, contents = [], []
    for number in range(COUNT):
        name = PHOTOS[number % 2]
        sides = _unchanged_sides(transform, number)
        size = sides if number % 4 < 2 else sides[::-1]
        full = photo(name)
        left, top = (int(random.integers(side // 4)) for side in full.size)
        box = (left, top, full.width, full.height)
        content = io.BytesIO()
        full.resize(size, Image.Resampling.BILINEAR, box=box).save(content, "PNG")
        names.append(f"{name} {size[0]}x{size[1]} from {left},{top}")
        contents.append(content.getvalue())
    pixels = np.stack([reference_pixels(content, transform) for content in contents])
    return Pictures(tuple(names), tuple(contents), pixels)


def _unchanged_sides(transform: pb.Photo, number: int) -> tuple[int, int]:
    """The longer and the shorter side of a picture that its resize leaves as it is."""
    side = transform.resize
    if transform.resize_mode == pb.SQUASH:
        return side, side
    if transform.resize_mode == pb.PAD:
        return side, max(1, side * (2 * COUNT - number) // (2 * COUNT))
    return side + 13 + 8 * number, side


@cache  # a command that builds several networks asks the gateway's preprocessing once
def _digits(serialized: bytes) -> Pictures:
    preprocessing = pb.Preprocessing.FromString(serialized)
    held_out = digits(2 * COUNT, SERVED_SEED)
    pages = [draw_page(plane) for plane in held_out.pixels]
    inputs = prepare(pages, preprocessing)
    accepted = [
        (name, page, pixels)
        for name, page, pixels in zip(held_out.names, pages, inputs, strict=True)
        if pixels is not None
    ][:COUNT]
    if not accepted:
        raise ParityError(f"The gateway's preprocessing rejects all {len(pages)} drawn digits.")
    names, contents, planes = zip(*accepted, strict=True)
    return Pictures(names, contents, np.stack(planes))


# ------------------------------------------------------------------------------ asking a gateway


class ServedAnswer:
    """A gateway's answers to encoded pictures; those of a batch are sent concurrently."""

    def __init__(self, client: Client, model: pb.Model) -> None:
        self._client = client
        self._model = model
        self.batch_sizes: set[int] = set()  # in which any answer was computed
        self.devices: set[str] = set()  # on which any answer was computed

    def __call__(self, contents: Sequence[bytes]) -> Probabilities:  # to N×K
        with ThreadPoolExecutor(len(contents)) as threads:
            return np.stack(list(threads.map(self._classify, contents)))

    def _classify(self, content: bytes) -> Probabilities:  # K
        model, labels = self._model, self._model.labels
        answer = self._client.classify(
            content, model=model.name, version=model.version, top_k=len(labels), min_score=0
        )
        if answer.manifest_digest != model.manifest_digest:
            raise ParityError(
                f"{model.name} version {model.version} answered as manifest "
                f"{answer.manifest_digest[:12]}, and {model.manifest_digest[:12]} was requested."
            )
        self.batch_sizes.add(answer.batch_size)
        self.devices.add(answer.device)
        probabilities = np.full(len(labels), np.nan, dtype=np.float32)
        for result in answer.classes:
            if result.label != labels[result.index].name:
                raise ParityError(
                    f"The gateway calls class {result.index} {result.label!r}, the model "
                    f"{labels[result.index].name!r}."
                )
            probabilities[result.index] = result.score
        return probabilities


def served_rung(
    client: Client,
    model: pb.Model,  # with its name and version in the gateway
    reference: Runtime,
    reference_name: str,
    *,
    max_batch_size: int,
) -> pb.ParityRung:
    """Compares the served answers with the file's.

    Raises:
        ParityError: the served answers differ from the file's; the message names the image.
        ServedError: the gateway does not answer.
    """
    sent = pictures(model.preprocessing)
    answer = ServedAnswer(client, model)
    try:
        answers = answer_in_batches(answer, sent.contents, max_batch_size)
        rung = judge(
            f"{reference_name} → served",
            answer_batches(reference.answer, sent.pixels, max_batch_size),
            answers,
            sent.names,
            served_tolerance(model.manifest, answer.devices),
        )
        compare_served_evidence(
            rung,
            client,
            model,
            reference,
            sent.names,
            sent.contents,
            sent.pixels,
            max_batch_size=max_batch_size,
        )
    except ConvoyError as error:
        raise ServedError(f"The gateway rejected a picture of the ladder: {error}") from error
    rung.batch_sizes_seen.extend(sorted(answer.batch_sizes))
    return rung


def served_tolerance(manifest: pb.Manifest, devices: set[str]) -> float:
    """Returns the largest allowed difference of a probability.

    The reference is computed on the CPU, except for a plan. A GPU rounds fp16 and int8 differently,
    as an engine does.
    """
    other_device = "gpu" in devices and manifest.format != "plan" and manifest.precision != "fp32"
    network = CATALOG.get(manifest.network, Network)  # an adopted file is no row of the catalog
    return network.engine_tolerance if other_device else network.served_tolerance
