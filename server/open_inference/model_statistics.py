"""What came through these doors, counted as Triton counts it, for its clients."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from convoy.v1 import classifier_pb2 as pb
from server.versions.manager import Servable
from server.versions.pool import Pool

STAGES = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")


@dataclass
class Duration:
    count: int = 0
    ns: int = 0

    def add(self, elapsed_us: float) -> None:
        self.count += 1
        self.ns += int(elapsed_us * 1e3)


@dataclass
class Tally:
    """Of one version of a model."""

    last_inference_ms: int = 0
    images: int = 0
    executions: float = 0.0  # an image that went through with three others is a quarter of one
    stages: dict[str, Duration] = field(
        default_factory=lambda: {name: Duration() for name in STAGES}
    )

    def add(self, answers: Sequence[pb.ClassifyResponse], elapsed_s: float) -> None:
        self.last_inference_ms = int(time.time() * 1e3)
        self.images += len(answers)
        self.executions += sum(1 / answer.served.batch_size for answer in answers)
        timings = [answer.timing for answer in answers]
        spent_us = {
            "success": elapsed_s * 1e6,
            "queue": max(each.queue_us for each in timings),
            "compute_input": max(each.decode_us + each.preprocess_us for each in timings),
            "compute_infer": max(each.infer_us - each.queue_us for each in timings),
            "compute_output": 0,
        }
        for name, us in spent_us.items():
            self.stages[name].add(us)

    def as_json(self, model: str, version: str) -> dict[str, Any]:
        return {
            "name": model,
            "version": version,
            "last_inference": self.last_inference_ms,
            "inference_count": self.images,
            "execution_count": round(self.executions),
            "inference_stats": {
                name: {"count": stage.count, "ns": stage.ns} for name, stage in self.stages.items()
            },
            "batch_stats": [],
        }


class Tallies(dict[tuple[str, str], Tally]):
    """By model and version. Those of versions that are gone are dropped when a new one comes."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self._pool = pool

    def __missing__(self, version: tuple[str, str]) -> Tally:
        for gone in [known for known in self if not self._pool.has_version(*known)]:
            del self[gone]
        tally = self[version] = Tally()
        return tally


class Statistics:
    def __init__(self, pool: Pool) -> None:
        self._tallies = Tallies(pool)

    def answered(self, answers: Sequence[pb.ClassifyResponse], elapsed_s: float) -> None:
        self._tallies[answers[0].model, answers[0].version].add(answers, elapsed_s)

    def failed(self, servable: Servable, elapsed_s: float) -> None:
        self._tallies[servable.model, servable.version].stages["fail"].add(elapsed_s * 1e6)

    def of(self, model: str, version: str) -> dict[str, Any]:
        return self._tallies[model, version].as_json(model, version)
