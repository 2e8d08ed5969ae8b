"""LitServe: pictures in base64, as its guides send them; a worker prepares and computes a batch."""

from __future__ import annotations

import base64
from typing import Any

import litserve as ls

from bench.peers.apps.network import (
    HOST,
    MAX_BATCH,
    MAX_WAIT_MS,
    PORT,
    WORKERS,
    Answer,
    Network,
    Pixels,
    Preparation,
)


class Classifier(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.prepare, self.network = Preparation(), Network()

    def decode_request(self, request: dict[str, str]) -> Pixels:
        return self.prepare(base64.b64decode(request["image_data"]))

    def batch(self, inputs: list[Pixels]) -> list[Pixels]:
        return inputs

    def predict(self, x: Any) -> list[Answer] | Answer:
        return self.network.classify(x) if MAX_BATCH > 1 else self.network.classify([x])[0]

    def unbatch(self, output: list[Answer]) -> list[Answer]:
        return output


if __name__ == "__main__":
    timeout_s = MAX_WAIT_MS / 1e3 if MAX_BATCH > 1 else 0.0
    api = Classifier(max_batch_size=MAX_BATCH, batch_timeout=timeout_s)
    server = ls.LitServer(
        api, accelerator="cpu", workers_per_device=WORKERS, fast_queue=True, timeout=60
    )
    server.run(host=HOST, port=PORT, log_level="warning", generate_client_file=False)
