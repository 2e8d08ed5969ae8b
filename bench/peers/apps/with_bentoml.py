"""BentoML: a service whose requests are batched adaptively; `bentoml serve` runs it."""

from __future__ import annotations

from pathlib import Path

import bentoml

from bench.peers.apps.network import MAX_BATCH, WORKERS, Answer, Network, Preparation


@bentoml.service(workers=WORKERS, logging={"access": {"enabled": False}})
class Classifier:
    def __init__(self) -> None:
        self.prepare, self.network = Preparation(), Network()

    @bentoml.api(batchable=MAX_BATCH > 1, max_batch_size=max(2, MAX_BATCH))
    def classify(self, images: list[Path]) -> list[Answer]:
        return self.network.classify([self.prepare(image.read_bytes()) for image in images])
