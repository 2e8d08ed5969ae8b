"""One image: classify.py localhost:8081 lenet5 IMAGE

gRPC; with http://localhost:8080 HTTP. A key is read from CONVOY_API_KEY.
"""

import sys

from convoy import Client, ConvoyError


def main(server: str, model: str, image: str) -> None:
    with Client(server, timeout_s=10) as client:
        try:
            answer = client.classify(image, model=model, top_k=3)
        except ConvoyError as error:
            sys.exit(f"{error.reason}: {error}")
    for found in answer.classes:
        print(found.label, f"{found.score:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
