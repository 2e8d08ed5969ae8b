"""Several images by asyncio and gRPC: asynchronous.py localhost:8081 lenet5 IMAGE...

Where keys are on, calls take metadata=[("authorization", f"Bearer {key}")].
"""

import asyncio
import sys
from pathlib import Path

import grpc

from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc

IN_FLIGHT = 8  # requests: a gateway refuses what it cannot hold


async def main(server: str, model: str, *images: str) -> None:
    limit = asyncio.Semaphore(IN_FLIGHT)
    async with grpc.aio.insecure_channel(server) as channel:
        stub = classifier_pb2_grpc.ImageClassifierStub(channel)

        async def classify(path: str) -> str:
            async with limit:
                content = await asyncio.to_thread(Path(path).read_bytes)
                request = pb.ClassifyRequest(model=model, image=pb.Image(content=content))
                try:
                    answer = await stub.Classify(request, timeout=10)
                except grpc.aio.AioRpcError as error:
                    return f"{path} {error.code().name}"
            return f"{path} {answer.classes[0].label} {answer.classes[0].score:.4f}"

        for line in await asyncio.gather(*map(classify, images)):
            print(line)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
