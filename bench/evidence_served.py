"""How many images a second a served model answers with evidence, over how many without.

    PYTHONPATH=. .venv/bin/python bench/evidence_served.py --repository R [--model resnet50]
        [--include HEATMAP FEATURES] [--rounds 15] [--requests 40]

A gateway serves the model on this machine. Eight clients ask over gRPC for the answer alone and for
the answer with evidence, in turns; the ratio of each pair of rounds counts.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import grpc

from bench.overload import gateway
from bench.pictures import digit, photo
from bench.ratios import median
from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc

CLIENTS = 8


async def images_per_s(stub: object, request: pb.ClassifyRequest, requests: int) -> float:
    async def client() -> None:
        for _ in range(requests // CLIENTS):
            await stub.Classify(request)  # type: ignore[attr-defined]  # generated without types

    began_s = time.monotonic()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return requests // CLIENTS * CLIENTS / (time.monotonic() - began_s)


async def compare(address: str, arguments: argparse.Namespace) -> None:
    content = digit() if arguments.model.endswith("digits") else photo()
    bare = pb.ClassifyRequest(model=arguments.model, image=pb.Image(content=content), top_k=5)
    asking = pb.ClassifyRequest(include=arguments.include)
    asking.MergeFrom(bare)
    rates = []
    async with grpc.aio.insecure_channel(address) as channel:
        stub = classifier_pb2_grpc.ImageClassifierStub(channel)
        for number in range(arguments.rounds + 1):
            pair = [await images_per_s(stub, each, arguments.requests) for each in (bare, asking)]
            if number:  # the first round warms up
                rates.append(pair)
    for label, values in zip(("alone", "with evidence"), zip(*rates, strict=True), strict=True):
        print(f"{label}: {median(values).value:.1f} images/s")
    print(f"ratio: {median([asked / alone for alone, asked in rates])}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--include", nargs="+", default=["HEATMAP", "FEATURES"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=40, help="of each round")
    arguments = parser.parse_args()
    options = [f"--repository={arguments.repository}", f"--models={arguments.model}"]
    with (
        tempfile.TemporaryDirectory() as folder,
        gateway(options, Path(folder) / "gateway.log") as (address, _),
    ):
        asyncio.run(compare(address, arguments))


if __name__ == "__main__":
    main()
