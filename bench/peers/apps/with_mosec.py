"""mosec: one stage that prepares and computes, or two, as its example of ResNet-50 has them."""

from __future__ import annotations

from typing import Any

from mosec import Server, Worker

from bench.peers.apps.network import (
    MAX_BATCH,
    MAX_WAIT_MS,
    STAGES,
    WORKERS,
    Answer,
    Network,
    Pixels,
    Preparation,
)


class Preparing(Worker):
    def __init__(self) -> None:
        self.prepare = Preparation()

    def deserialize(self, data: bytes) -> Pixels:
        return self.prepare(data)

    def forward(self, data: Any) -> Any:
        return data


class Computing(Worker):
    def __init__(self) -> None:
        self.network = Network()

    def forward(self, data: Any) -> list[Answer] | Answer:
        return self.network.classify(data) if MAX_BATCH > 1 else self.network.classify([data])[0]


class Classifier(Computing, Preparing):
    def __init__(self) -> None:
        self.prepare, self.network = Preparation(), Network()


if __name__ == "__main__":
    server = Server()
    if STAGES > 1:
        server.append_worker(Preparing, num=WORKERS)
    server.append_worker(
        Computing if STAGES > 1 else Classifier,
        num=WORKERS,
        max_batch_size=MAX_BATCH,
        max_wait_time=MAX_WAIT_MS,
        timeout=60,
    )
    server.run()
