"""Requests of this protocol, counted as Triton counts them, for its clients."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from convoy.v1 import classifier_pb2 as pb
from server.core.service import Service
from server.errors import ServingError
from server.versions.pool import Pool
from server.versions.state import Servable

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
    """The counts of one version of a model."""

    last_inference_ms: int = 0
    images: int = 0
    executions: float = 0.0  # an image batched with three others is a quarter of one
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
            "queue": max(timing.queue_us for timing in timings),
            "compute_input": max(timing.decode_us + timing.preprocess_us for timing in timings),
            "compute_infer": max(timing.infer_us - timing.queue_us for timing in timings),
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
    def __init__(self, service: Service) -> None:
        self._service = service
        self._tallies = Tallies(service.pool)

    def own(self) -> list[dict[str, Any]]:
        return [tally.as_json(*version) for version, tally in self._tallies.items()]

    async def read(self, versions: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        """Of these models and versions, as all workers have counted them."""
        rows = await self._service.ask_supervisor("/statistics") or self.own()
        counted = {(row["name"], row["version"]): row for row in rows}
        return [counted.get(version) or Tally().as_json(*version) for version in versions]

    def counting(self, servable: Servable | None) -> Counting:
        """Around one request to a version; None, if nothing serves it, is not counted."""
        return Counting(self._tallies, servable)


class Counting:
    """One request: counted as a success with its responses, or as a failure."""

    def __init__(self, tallies: dict[tuple[str, str], Tally], servable: Servable | None) -> None:
        self._tallies = tallies
        self._servable = servable
        self._began_s = time.monotonic()
        self.responses: Sequence[pb.ClassifyResponse] = ()

    def __enter__(self) -> Counting:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        elapsed_s = time.monotonic() - self._began_s
        if self.responses:
            first = self.responses[0]
            self._tallies[first.model, first.version].add(self.responses, elapsed_s)
        elif self._servable and isinstance(error, ServingError):
            tally = self._tallies[self._servable.model, self._servable.version]
            tally.stages["fail"].add(elapsed_s * 1e6)
