"""The gateway's status: what it serves, what it does not and why, and how fast it answers."""

from __future__ import annotations

import asyncio
import time
from importlib.metadata import version

from convoy.v1 import classifier_pb2 as pb
from server.core.admission import Admission
from server.core.service import Service
from server.observability import logs
from server.observability.metrics import Facts, describe_traffic
from server.preprocessing.resizing import describe_resizer
from server.versions.manager import VersionManager
from server.versions.pool import Pool


class Status:
    """Asked for by the HTTP API and the admin port alike."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._started_s = time.monotonic()

    async def facts_of_all(self) -> Facts:
        """Of all workers together."""
        facts: Facts | None = await self._service.ask_supervisor("/status")
        return facts or await self.facts()

    async def facts(self) -> Facts:
        """Of this process."""
        service, pool = self._service, self._service.pool
        summaries = await asyncio.to_thread(service.metrics.summaries)
        uptime_s = time.monotonic() - self._started_s
        return {
            "gateway": describe_gateway(pool, service.admission, service.is_ready(), uptime_s),
            "runners": [describe_runner(*item) for item in pool.managers.items()],
            "models": [
                describe_version(pool.describe(model.name, model.version), pool)
                for model in pool.list()
            ],
            "traffic": [describe_traffic(*item) for item in sorted(summaries.items())],
        }


def describe_gateway(pool: Pool, admission: Admission, is_ready: bool, uptime_s: float) -> Facts:
    why_not = "shutting down" if admission.is_draining else pool.why_not_ready()
    return {
        "version": version("convoy-serving"),
        "uptime_s": round(uptime_s, 1),
        "is_ready": is_ready,
        "why_not_ready": "" if is_ready else why_not,
        "in_flight": admission.in_flight,
        "in_flight_bytes": admission.in_flight_bytes,
        "log_lines_lost": logs.lost_lines(),
        "jpeg_decoder": "libjpeg-turbo",
        "resizer": describe_resizer(),
    }


def describe_runner(name: str, manager: VersionManager) -> Facts:
    return {
        "name": name,
        "is_reachable": not manager.runner_fault,
        "fault": manager.fault,
        "has_repository": not manager.repository_fault,
        "in_flight": manager.runner.in_flight,
        "images": dict(manager.runner.outcomes),
    }


def describe_version(model: pb.Model, pool: Pool) -> Facts:
    facts: Facts = {
        "model": model.name,
        "version": model.version,
        "state": pb.State.Name(model.state).removeprefix("STATE_"),
        "why_not_ready": model.state_reason,
        "is_default": model.is_default,
    }
    if model.state == pb.STATE_READY:
        loaded = pool.resolve(model.name, model.version).loaded
        facts |= {
            "runtime": loaded.runtime,
            "device": loaded.device,
            "precision": model.manifest.precision,
            "weights": model.manifest.weights.source,
            "manifest_digest": model.manifest_digest,
            "parity": [describe_rung(rung) for rung in model.parity],
        }
    return facts


def describe_rung(rung: pb.ParityRung) -> Facts:
    return {
        "name": rung.name,
        "images": rung.images,
        "largest_difference": rung.largest_difference,
        "tolerance": rung.tolerance,
        "reported_only": rung.reported_only,
    }
