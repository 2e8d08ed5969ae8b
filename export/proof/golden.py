"""Golden images: the answers that a version must give, through the whole path, before it is served.

Each is a small picture with the answers of the last runtime before the server. They expose a
gateway that crops, rotates or mixes channels differently: a photo's pixels are computed by other
code than the gateway's (preparation/reference.py); a digit that the gateway extracts is compared
with the digit that was drawn.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from PIL import Image

from convoy.v1 import classifier_pb2 as pb
from export.catalog import MAX_GOLDEN_BYTES, Network
from export.errors import ParityError
from export.preparation.reference import reference_pixels
from export.proof.evidence import Evidence, scale
from export.proof.runtimes import Runtime
from export.samples.gateway_preprocessing import prepare
from export.samples.images import (
    PHOTOS,
    PROOF_SEED,
    Answer,
    Pixels,
    Probabilities,
    Samples,
    digits,
    photo,
)

MAX_DIGITS = 3
CANDIDATES = 40
# An answer that is nearly certain hardly moves when the input does; one with this score does.
TELLING_SCORE = 0.8
PHOTO_SIDE = (
    280  # pixels, the shorter side; above most networks' `resize`, so that resizing matters
)
DIGIT_SCALE = 10  # pixels of the page per pixel of the plane
PAPER, INK = 230, 30  # grey levels of the page
MAX_GOLDEN_FEATURES = 64  # enough to tell a layer by, and few enough to carry
EVIDENCE_TOLERANCE = 2.0  # times that of a probability


def golden_images(
    network: Network,
    preprocessing: pb.Preprocessing,
    labels: Sequence[pb.Label],
    runtime: Runtime,
    *,
    is_random: bool,
) -> list[pb.GoldenImage]:
    """Returns two photos, or one to three digits, with the answers expected of them.

    Raises:
        ParityError: the gateway's preprocessing changes what the network reads.
    """
    if preprocessing.WhichOneof("kind") == "photo":
        return photo_goldens(network, preprocessing.photo, labels, runtime, sample_photos())
    held_out = digits(count=1000, seed=PROOF_SEED)
    unchanged = _unchanged(held_out, preprocessing, runtime.answer)
    # Random weights may take another stroke width for another digit: one digit is enough then.
    _require(network, unchanged, 1 if is_random else CANDIDATES // 2)
    first_of_class: dict[int, pb.GoldenImage] = {}
    for name, plane, pixels in unchanged:
        (probabilities,) = runtime.answer(pixels[np.newaxis])
        best = int(probabilities.argmax())
        if best in first_of_class:
            continue
        page = draw_page(plane, is_kept=True)
        golden = _golden_image(network, name, page, probabilities, labels)
        _expect_evidence(golden, runtime.evidence(pixels[np.newaxis]), network.golden_tolerance)
        first_of_class[best] = golden
        if len(first_of_class) == MAX_DIGITS:
            break
    return list(first_of_class.values())


def _golden_image(
    network: Network,
    name: str,
    content: bytes,
    probabilities: Probabilities,  # K
    labels: Sequence[pb.Label],
) -> pb.GoldenImage:
    best = np.argsort(-probabilities, kind="stable")[:5]
    expected = [
        pb.Class(
            label=labels[index].name,
            score=probabilities[index],
            index=index,
            id=labels[index].id,
        )
        for index in best.tolist()
    ]
    return pb.GoldenImage(
        content=content, name=name, expected=expected, tolerance=network.golden_tolerance
    )


def _expect_evidence(golden: pb.GoldenImage, evidence: Evidence, tolerance: float) -> None:
    """Adds the heat-map of the best class, and the first features; `evidence` is of this image."""
    best = golden.expected[0]
    golden.evidence_tolerance = EVIDENCE_TOLERANCE * tolerance
    if evidence.classes is not None and evidence.heatmaps is not None:
        place = evidence.classes[0].tolist().index(best.index)
        values = scale(evidence.heatmaps[0, place]).round(4).flatten()
        golden.expected_map.CopyFrom(pb.ClassMap(label=best.label, index=best.index, values=values))
    if evidence.features is not None:
        features = evidence.features[0, :MAX_GOLDEN_FEATURES]
        golden.expected_features.extend(features.round(4))


# ----------------------------------------------------------------------------------------- photos


def photo_goldens(
    network: Network,
    transform: pb.Photo,
    labels: Sequence[pb.Label],
    runtime: Runtime,
    contents: Mapping[str, bytes],
) -> list[pb.GoldenImage]:
    """One of each of these JPEG files, by their names."""
    goldens = []
    for name, content in contents.items():
        pixels = reference_pixels(content, transform)[np.newaxis]
        golden = _golden_image(network, name, content, runtime.answer(pixels)[0], labels)
        _expect_evidence(golden, runtime.evidence(pixels), network.golden_tolerance)
        goldens.append(golden)
    return goldens


def sample_photos() -> dict[str, bytes]:
    """The two sample photos as small JPEG files, by their names."""
    return {name: small_jpeg(photo(name)) for name in PHOTOS}


def small_jpeg(picture: Image.Image) -> bytes:
    """Returns the picture reduced in size, as a JPEG file of the best quality that fits."""
    scale = PHOTO_SIDE / min(picture.size)
    small = picture.resize(
        (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS
    )
    for quality in range(90, 0, -5):
        content = io.BytesIO()
        small.save(content, "JPEG", quality=quality, optimize=True)
        if content.tell() <= MAX_GOLDEN_BYTES:
            break
    return content.getvalue()


# ----------------------------------------------------------------------------------------- digits


def _unchanged(
    held_out: Samples, preprocessing: pb.Preprocessing, answer: Answer
) -> list[tuple[str, Pixels, Pixels]]:
    """Returns the name, plane and input of each candidate that the gateway reads as it was drawn.

    The input is the very one that the gateway makes of the page, so that a change of a grey level
    shows. Its best class must be that of the plane that was drawn, so that the preprocessing is not
    only compared with itself.
    """
    on_planes = answer(held_out.pixels)
    rows = np.argsort(np.abs(on_planes.max(axis=1) - TELLING_SCORE), kind="stable")[:CANDIDATES]
    pages = [draw_page(held_out.pixels[row]) for row in rows.tolist()]

    def unchanged() -> Iterator[tuple[str, Pixels, Pixels]]:
        for row, pixels in zip(rows.tolist(), prepare(pages, preprocessing), strict=True):
            if pixels is None:
                continue
            if answer(pixels[np.newaxis])[0].argmax() == on_planes[row].argmax():
                yield held_out.names[row], held_out.pixels[row], pixels

    return list(unchanged())


def _require(network: Network, pages: Sequence[object], count: int) -> None:
    if len(pages) < count:
        raise ParityError(
            f"The gateway's preprocessing changes what {network.name} reads: of {CANDIDATES} "
            f"digits drawn large, only {len(pages)} were read as they were drawn."
        )


def draw_page(plane: Pixels, *, is_kept: bool = False) -> bytes:
    """Draws a plane, H×W×1 with light ink, in dark ink off-centre on a larger page: a PNG file.

    One that is kept is made as small as it can be, which takes ten times as long.
    """
    grey = PAPER - plane[:, :, 0].astype(np.float32) / 255 * (PAPER - INK)
    digit = Image.fromarray(grey.round().astype(np.uint8))
    large = digit.resize(
        (digit.width * DIGIT_SCALE, digit.height * DIGIT_SCALE), Image.Resampling.BICUBIC
    )
    page = Image.new("L", (large.width + 160, large.height + 120), PAPER)
    page.paste(large, (110, 30))
    content = io.BytesIO()
    page.save(content, "PNG", optimize=is_kept, compress_level=1)
    return content.getvalue()
