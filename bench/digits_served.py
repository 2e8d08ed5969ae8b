"""Digits per second as served by LeNet-5, beside the gateway of another checkout.

    PYTHONPATH=. .venv/bin/python bench/digits_served.py --before CHECKOUT [--rounds 11]

CHECKOUT has a .venv of its own. Both gateways serve the repository of their own checkout on this
machine. Sixteen clients ask one and then the other over gRPC, in turns, for tests/data/digit-7.png
and for a digit of 28×28 pixels; the ratio of each pair of rounds counts. Client and gateways share
the cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import Annotated

import grpc
import typer

from bench.evidence_served import images_per_s
from bench.overload import gateway
from bench.pictures import digit
from bench.ratios import median
from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc

ROOT = Path(__file__).resolve().parents[1]
MODEL = "lenet5"
CLIENTS = 16
REQUESTS = {"digit-7.png": 96, "28×28": 480}  # per round


async def compare(name: str, content: bytes, addresses: list[str], rounds: int) -> None:
    request = pb.ClassifyRequest(model=MODEL, image=pb.Image(content=content))
    pairs: list[list[float]] = []
    async with contextlib.AsyncExitStack() as channels:
        stubs = [
            classifier_pb2_grpc.ImageClassifierStub(
                await channels.enter_async_context(grpc.aio.insecure_channel(address))
            )
            for address in addresses
        ]
        for number in range(rounds + 1):
            pair = [
                await images_per_s(stub.Classify, request, REQUESTS[name], CLIENTS)
                for stub in stubs
            ]
            if number:  # the first round warms up
                pairs.append(pair)
    for label, values in zip(("before", "now"), zip(*pairs, strict=True), strict=True):
        print(f"{name}, {label}: {median(values).value:.0f} images/s")
    print(f"{name}, ratio: {median([now / before for before, now in pairs])}", flush=True)


def main(
    before: Annotated[Path, typer.Option(help="The other checkout.")],
    rounds: Annotated[int, typer.Option(min=1, help="Pairs of rounds.")] = 11,
) -> None:
    """Compare how many digits per second LeNet-5 reads with those of another checkout."""
    pictures = {"digit-7.png": (ROOT / "tests/data/digit-7.png").read_bytes(), "28×28": digit()}
    with contextlib.ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        addresses: list[str] = []
        for checkout in (before.resolve(), ROOT):
            options = [f"--repository={checkout / 'model_repository'}", f"--models={MODEL}"]
            log_path = folder / f"{len(addresses)}.log"
            serving = gateway(options, log_path, checkout)
            addresses.append(running.enter_context(serving)[0])
        for name, content in pictures.items():
            asyncio.run(compare(name, content, addresses, rounds))


if __name__ == "__main__":
    typer.run(main)
