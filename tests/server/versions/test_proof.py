"""Golden images hold a version to its heat-maps and features as well."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from convoy.v1 import classifier_pb2 as pb
from export.console import PublishedVersion
from server.pipeline import Pipeline
from server.runners.base import LoadedModel
from server.runners.in_process import InProcessRunner
from server.versions.proof import NotProven, prove


def other_class(golden: pb.GoldenImage) -> None:
    golden.expected_map.index = golden.expected[4].index


def swapped_axes(golden: pb.GoldenImage) -> None:
    side = int(len(golden.expected_map.values) ** 0.5)
    rows = [golden.expected_map.values[n * side : (n + 1) * side] for n in range(side)]
    golden.expected_map.values[:] = [row[n] for n in range(side) for row in rows]


def shifted_features(golden: pb.GoldenImage) -> None:
    golden.expected_features[:] = [*golden.expected_features[1:], golden.expected_features[0]]


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (other_class, "the heat-map of .* differs"),
        (swapped_axes, "the heat-map of .* differs"),
        (shifted_features, "the features have a cosine"),
    ],
)
def test_a_version_with_other_evidence_than_its_build_is_not_proven(
    mistake: Callable[[pb.GoldenImage], None], message: str, built_nin: PublishedVersion
) -> None:
    assert built_nin.model.golden_images[0].HasField("expected_map")
    asyncio.run(prove_with(built_nin.folder, lambda golden: None))
    with pytest.raises(NotProven, match=message):
        asyncio.run(prove_with(built_nin.folder, mistake))


async def prove_with(folder: Path, change: Callable[[pb.GoldenImage], None]) -> None:
    runner = InProcessRunner(folder.parent)
    pipeline = Pipeline(decode_threads=1, max_image_bytes=1 << 24, max_image_pixels=10**7)
    loaded = await runner.load(folder.name)
    facts = pb.Model()
    facts.CopyFrom(loaded.facts)
    for golden in facts.golden_images:
        change(golden)
    model = LoadedModel(facts, loaded.runtime, loaded.device, loaded.max_batch_size)
    try:
        await prove(pipeline, runner, folder.name, model)
    finally:
        pipeline.close()
        await runner.close()
