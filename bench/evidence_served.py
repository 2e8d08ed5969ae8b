"""What evidence costs as served: images a second with it, over those without.

    PYTHONPATH=. .venv/bin/python bench/evidence_served.py --repository R [--model resnet50]
        [--include HEATMAP FEATURES] [--before R2] [--rounds 15] [--requests 40]

A gateway serves the model on this machine. Eight clients ask over gRPC for the answer alone and for
the answer with evidence, in turns; the ratio of each pair of rounds counts. With --before nothing
is asked for: R2, a repository whose version has no outputs for evidence, answers first.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc

from bench.overload import gateway
from bench.pictures import digit, photo
from bench.ratios import median
from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc
from export.catalog import find

CLIENTS = 8


async def images_per_s(
    classify: Any, request: pb.ClassifyRequest, requests: int, clients: int = CLIENTS
) -> float:
    async def client() -> None:
        for _ in range(requests // clients):
            await classify(request)

    began_s = time.monotonic()
    await asyncio.gather(*(client() for _ in range(clients)))
    return requests // clients * clients / (time.monotonic() - began_s)


async def compare(before: str, after: str, arguments: argparse.Namespace) -> None:
    """Asks the gateways at two addresses, which may be one."""
    content = digit() if find(arguments.model).reads_digits else photo()
    bare = pb.ClassifyRequest(model=arguments.model, image=pb.Image(content=content), top_k=5)
    asking = pb.ClassifyRequest(include=[] if arguments.before else arguments.include)
    asking.MergeFrom(bare)
    rates = []
    async with grpc.aio.insecure_channel(before) as one, grpc.aio.insecure_channel(after) as other:
        kinds = [
            (classifier_pb2_grpc.ImageClassifierStub(channel).Classify, request)
            for channel, request in ((one, bare), (other, asking))
        ]
        for number in range(arguments.rounds + 1):
            pair = [await images_per_s(*kind, arguments.requests) for kind in kinds]
            if number:  # the first round warms up
                rates.append(pair)
    for label, values in zip(("without", "with"), zip(*rates, strict=True), strict=True):
        print(f"{label}: {median(values).value:.1f} images/s")
    print(f"ratio: {median([after / before for before, after in rates])}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--include", nargs="+", default=["HEATMAP", "FEATURES"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=40, help="of each round")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        addresses: list[str] = []
        for path in filter(None, (arguments.before, arguments.repository)):
            options = [f"--repository={path}", f"--models={arguments.model}"]
            log_path = folder / f"{len(addresses)}.log"
            addresses.append(running.enter_context(gateway(options, log_path))[0])
        asyncio.run(compare(addresses[0], addresses[-1], arguments))


if __name__ == "__main__":
    main()
