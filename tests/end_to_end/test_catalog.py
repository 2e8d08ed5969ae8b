"""Every network of the catalog, from random weights to an answer through both runners.

`make test` runs one photo network in fp16, whose build also proves fp32 (test_walk.py builds a
digit network); `make test-slow` runs all of them in both precisions, and prints a table.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convoy import Classification, Client
from export.build import run
from export.catalog import CATALOG, find
from export.options import Options, Precision

Serve = Callable[..., Any]

WALK = ("nin_cifar10", "fp16")
WHOLE_WALK = [(name, precision) for name in CATALOG for precision in ("fp32", "fp16")]


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        pytest.param(*walk, marks=() if walk == WALK else pytest.mark.slow, id="-".join(walk))
        for walk in WHOLE_WALK
    ],
)
def test_a_network_is_built_proven_and_served_by_both_runners(
    name: str,
    precision: Precision,
    serve: Serve,
    tmp_path: Path,
    photos: dict[str, bytes],
    digit: bytes,
    tritonserver: Path,
    record_property: Callable[[str, object], None],
) -> None:
    started_s = time.monotonic()
    repository = tmp_path / "model_repository"
    published = run(Options(find(name), precision, "random", 0, repository))
    takes_digits = find(name).preprocessing.WhichOneof("kind") == "digit"
    image = digit if takes_digits else photos["flower.jpg"]
    answers = [
        classify(serve, repository, runner, name, image)
        for runner in ("in-process", "triton-local")
    ]
    seconds = time.monotonic() - started_s
    shutil.rmtree(repository)  # 28 networks are 6 GB
    for answer in answers:
        assert (answer.weights, answer.precision) == ("random", precision)
        assert answer.best.label == published.model.labels[answer.best.index].name
    here, there = answers
    assert here.best.index == there.best.index
    assert here.best.score == pytest.approx(there.best.score, abs=1e-4)
    rung = published.model.parity[-2]  # the last is the same file, served
    record_property("walk", (name, precision, f"{rung.largest_difference:.1e}", f"{seconds:.0f}"))


def classify(
    serve: Serve, repository: Path, runner: str, name: str, image: bytes
) -> Classification:
    gateway = serve(f"--repository={repository}", f"--runner={runner}")
    gateway.wait_until_ready(120)
    with Client(gateway.grpc, timeout_s=60) as client:
        answer = client.classify(image, model=name)
    assert gateway.stop() == 0
    return answer
