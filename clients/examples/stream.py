"""Any number of images over one stream, in order: stream.py localhost:8081 lenet5 IMAGE...

The gateway reads some requests ahead, and gRPC holds the others back, so that a folder of any size
needs little memory on either side.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import grpc

from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc


def read_requests(model: str, paths: tuple[str, ...]) -> Iterator[pb.ClassifyRequest]:
    for path in paths:
        image = pb.Image(content=Path(path).read_bytes())
        yield pb.ClassifyRequest(model=model, image=image, top_k=1)


def main(server: str, model: str, *paths: str) -> None:
    with grpc.insecure_channel(server) as channel:
        stub = classifier_pb2_grpc.ImageClassifierStub(channel)
        results = stub.StreamClassify(read_requests(model, paths), timeout=60)
        for path, result in zip(paths, results, strict=True):
            if result.HasField("error"):
                print(path, result.error.message)
            else:
                best = result.response.classes[0]
                print(path, best.label, f"{best.score:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
