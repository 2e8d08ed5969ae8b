"""Several images in one call, each of which fails alone: batch.py localhost:8081 lenet5 IMAGE..."""

import sys

from convoy import Client, ConvoyError


def main(server: str, model: str, *images: str) -> None:
    with Client(server, timeout_s=10) as client:
        results = client.classify_batch(images, model=model)
    for image, result in zip(images, results, strict=True):
        if isinstance(result, ConvoyError):
            print(image, result.reason)
        else:
            print(image, result.best.label, f"{result.best.score:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
