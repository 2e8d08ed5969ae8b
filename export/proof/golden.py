"""Golden images: what a version must answer, through the whole path, before it is served anywhere.

Each is a small picture with the answers of the last runtime before the server. A gateway that
crops, turns or mixes channels otherwise is found out: a photo's pixels are made here, by a
transform of our own; of a digit, what the gateway finds is compared with what was drawn.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from convoy.v1 import classifier_pb2 as pb
from export.catalog import Network
from export.errors import ParityError
from export.proof.parity import Answer, Probabilities
from export.samples.gateway_preprocessing import prepared
from export.samples.images import PHOTOS, PROOF_SEED, Pixels, digits, photo

MAX_BYTES = 16_000
COUNT = 3  # of digits, at most
CANDIDATES = 40
# An answer that is nearly sure hardly moves when the input does; this one moves.
TELLING_SCORE = 0.8
PHOTO_SIDE = 280  # pixels, the shorter side; above most networks' `resize`, so that it is used
DIGIT_SCALE = 10  # pixels of the page to one of the plane
PAPER, INK = 230, 30  # grey levels of the page


def golden_images(
    network: Network,
    preprocessing: pb.Preprocessing,
    labels: Sequence[pb.Label],
    answer: Answer,
    *,
    is_random: bool,
) -> list[pb.GoldenImage]:
    if preprocessing.WhichOneof("kind") == "digit":
        # Random weights may take another width of stroke for another digit: one digit will do.
        least = 1 if is_random else CANDIDATES // 2
        return _digits(network, preprocessing, labels, answer, least)
    return _photos(network, preprocessing.photo, labels, answer)


def _expected(
    probabilities: Probabilities, labels: Sequence[pb.Label]
) -> list[pb.Class]:  # of one image, K
    best = np.argsort(-probabilities, kind="stable")[:5]
    return [
        pb.Class(
            label=labels[index].name,
            score=probabilities[index],
            index=index,
            id=labels[index].id,
        )
        for index in best.tolist()
    ]


# ----------------------------------------------------------------------------------------- photos


def _photos(
    network: Network, transform: pb.Photo, labels: Sequence[pb.Label], answer: Answer
) -> list[pb.GoldenImage]:
    contents = {name: small_jpeg(photo(name)) for name in PHOTOS}
    pixels = np.stack([cropped(content, transform) for content in contents.values()])
    return [
        pb.GoldenImage(
            content=content,
            name=name,
            expected=_expected(probabilities, labels),
            tolerance=network.golden_tolerance,
        )
        for (name, content), probabilities in zip(contents.items(), answer(pixels), strict=True)
    ]


def small_jpeg(picture: Image.Image) -> bytes:
    """The picture made smaller, at the best quality that fits."""
    scale = PHOTO_SIDE / min(picture.size)
    small = picture.resize(
        (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS
    )
    for quality in range(90, 0, -5):
        content = io.BytesIO()
        small.save(content, "JPEG", quality=quality, optimize=True)
        if content.tell() <= MAX_BYTES:
            break
    return content.getvalue()


def cropped(content: bytes, transform: pb.Photo) -> Pixels:
    """As the published checkpoints were measured (torchvision's transforms): crop×crop×3.

    The longer side is cut down to whole pixels and not rounded, the offsets of the crop are rounded
    half to even.
    """
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    width, height = picture.size
    shorter = min(width, height)
    size = (int(transform.resize * width / shorter), int(transform.resize * height / shorter))
    resized = picture.resize(size, Image.Resampling.BILINEAR)
    left, top = (round((side - transform.crop) / 2) for side in size)
    box = (left, top, left + transform.crop, top + transform.crop)
    return np.asarray(resized.crop(box))


# ----------------------------------------------------------------------------------------- digits


def _digits(
    network: Network,
    preprocessing: pb.Preprocessing,
    labels: Sequence[pb.Label],
    answer: Answer,
    least: int,
) -> list[pb.GoldenImage]:
    """Held-out digits of different classes, drawn large, as the gateway's preparation finds them.

    What a page must be answered is of the very input that the gateway makes of it, so that a change
    of a grey level shows; and its best class must be that of the plane that was drawn, so that the
    preparation is held to something that is not its own.

    Raises:
        ParityError: fewer than `least` of the digits tried come back as what was drawn.
    """
    held_out = digits(count=1000, seed=PROOF_SEED)
    on_planes = answer(held_out.pixels)
    rows = np.argsort(np.abs(on_planes.max(axis=1) - TELLING_SCORE), kind="stable")[:CANDIDATES]
    pages = [drawn(held_out.pixels[row]) for row in rows.tolist()]
    same: list[tuple[int, pb.GoldenImage]] = []  # best class, and the page that says so
    for row, page, found in zip(rows.tolist(), pages, prepared(pages, preprocessing), strict=True):
        best = int(on_planes[row].argmax())
        if found is None or (probabilities := answer(found[np.newaxis])[0]).argmax() != best:
            continue
        golden = pb.GoldenImage(
            content=page,
            name=held_out.names[row],
            expected=_expected(probabilities, labels),
            tolerance=network.golden_tolerance,
        )
        same.append((best, golden))
    if len(same) < least:
        raise ParityError(
            f"The gateway's preparation changes what {network.name} reads: of {CANDIDATES} digits "
            f"drawn large, {len(same)} come back as they were drawn."
        )
    chosen: dict[int, pb.GoldenImage] = {}
    for best, golden in same:
        chosen.setdefault(best, golden)
    return list(chosen.values())[:COUNT]


def drawn(plane: Pixels) -> bytes:
    """A plane, H×W×1, ink light, as a PNG of dark ink on a larger page, and not in its middle."""
    grey = PAPER - plane[:, :, 0].astype(np.float32) / 255 * (PAPER - INK)
    digit = Image.fromarray(grey.round().astype(np.uint8))
    large = digit.resize(
        (digit.width * DIGIT_SCALE, digit.height * DIGIT_SCALE), Image.Resampling.BICUBIC
    )
    page = Image.new("L", (large.width + 160, large.height + 120), PAPER)
    page.paste(large, (110, 30))
    content = io.BytesIO()
    page.save(content, "PNG", optimize=True)
    return content.getvalue()
