"""The admin port of the supervisor, which asks all workers and answers for the whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence

import httpx
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from server.admin.metrics import metrics_route
from server.admin.statusz import statusz_route
from server.admin.worker import SAMPLES, STATISTICS
from server.http_api.browsers import BrowserGuard, BrowserGuardMiddleware
from server.http_api.server import HttpServer
from server.observability import exposition
from server.observability.metrics import Facts, describe_traffic, summarize
from server.settings import Settings
from server.workers.facts import merge_facts
from server.workers.shared import Shared
from server.workers.silence import kill_silent_workers
from server.workers.sockets import ask
from server.workers.supervised import Process, SupervisedWorker
from server.workers.totals import (
    Statistics,
    Totals,
    merge_metrics,
    merge_statistics,
    only_counts,
)


class AllWorkers:
    """What all workers together are."""

    def __init__(self, workers: Sequence[SupervisedWorker], settings: Settings) -> None:
        self._workers = workers
        self._settings = settings
        self._metrics = Totals(merge_metrics, only_counts)
        self._statistics = Totals(merge_statistics, list)
        self._adding_up = asyncio.Lock()

    async def why_not_ready(self) -> str:
        """Empty: all that listen are ready, and one does."""
        if self._are_draining():
            return "shutting down"
        answers = await self._ask("/readyz", "text/plain")
        reasons = [
            response.text.strip().removeprefix("not ready: ")
            for response in answers.values()
            if response.status_code != httpx.codes.OK
        ]
        return "; ".join(dict.fromkeys(reasons)) if answers else "no worker answers"

    async def metrics(self) -> list[Metric]:
        workers = self._workers
        listening = GaugeMetricFamily(
            "convoy_workers",
            "Workers that accept connections",
            sum(worker.is_listening for worker in workers),
        )
        restarts = CounterMetricFamily(
            "convoy_worker_restarts",
            "Processes of workers that replaced one that had ended",
            sum(worker.restarts for worker in workers),
        )
        return [*await self._sum_of_metrics(), listening, restarts]

    async def status(self) -> Facts:
        """As one gateway has it for clients."""
        answers = await self._ask("/statusz", "application/json")
        summaries = summarize(await self._sum_of_metrics())
        traffic = [describe_traffic(*item) for item in sorted(summaries.items())]
        merged = merge_facts([response.json() for response in answers.values()])
        if self._are_draining():
            merged["gateway"] |= {"is_ready": False, "why_not_ready": "shutting down"}
        return merged | {"traffic": traffic}

    async def facts(self) -> Facts:
        """As the operator sees it."""
        workers = [describe_worker(worker) for worker in self._workers]
        settings = self._settings.model_dump(mode="json", exclude_none=True)
        return await self.status() | {"workers": workers, "settings": settings}

    async def statistics(self) -> Statistics:
        answers = await self._ask(STATISTICS)
        rows = {process: response.json() for process, response in answers.items()}
        return self._statistics.add_up(rows, self._running())

    async def _sum_of_metrics(self) -> list[Metric]:
        async with self._adding_up:
            answers = await self._ask(SAMPLES)
            return await asyncio.to_thread(self._add_up_metrics, answers)

    def _add_up_metrics(self, answers: Mapping[Process, httpx.Response]) -> list[Metric]:
        metrics = {
            process: exposition.from_json(answer.text) for process, answer in answers.items()
        }
        return self._metrics.add_up(metrics, self._running())

    def _running(self) -> list[Process]:
        return [worker.process for worker in self._workers]

    def _are_draining(self) -> bool:
        return any(worker.is_stopping for worker in self._workers)

    async def _ask(self, path: str, accept: str = "") -> Mapping[Process, httpx.Response]:
        """The answers of those that listen and answer in time."""
        workers = [worker for worker in self._workers if worker.is_listening]
        processes = [worker.process for worker in workers]
        addresses = [worker.settings.metrics_address for worker in workers]
        responses = await asyncio.gather(*(ask(it, path, accept=accept) for it in addresses))
        answers = zip(processes, responses, strict=True)
        return {process: response for process, response in answers if response is not None}


def describe_worker(worker: SupervisedWorker) -> Facts:
    return {
        "worker": worker.number,
        "process": worker.pid,
        "is_listening": worker.is_listening,
        "restarts": worker.restarts,
    }


class AdminPort:
    """The operator's port, and the socket on which workers ask for what is so of all.

    Raises:
        StartFailed: the port is in use.
    """

    def __init__(
        self, workers: Sequence[SupervisedWorker], settings: Settings, shared: Shared
    ) -> None:
        whole, address = AllWorkers(workers, settings), settings.metrics_address
        guard = Middleware(BrowserGuardMiddleware, guard=BrowserGuard(settings, address))
        admin = Starlette(routes=admin_routes(whole), middleware=[guard])
        self._servers = [
            HttpServer(admin, address, "--metrics-address", settings),
            HttpServer(
                Starlette(routes=supervisor_routes(whole)), shared.supervisor_address, "", settings
            ),
        ]
        self.url = self._servers[0].url
        self.watching = asyncio.create_task(
            kill_silent_workers(workers, shared.beats, settings.worker_timeout_s)
        )

    async def stop(self) -> None:
        await asyncio.gather(*(server.stop() for server in self._servers))


def admin_routes(workers: AllWorkers) -> list[Route]:
    async def show_live(request: Request) -> Response:
        return PlainTextResponse("live\n")

    async def show_ready(request: Request) -> Response:
        if reason := await workers.why_not_ready():
            return PlainTextResponse(f"not ready: {reason}\n", 503)
        return PlainTextResponse("ready\n")

    return [
        metrics_route(workers.metrics),
        statusz_route(workers.facts),
        Route("/livez", show_live),
        Route("/readyz", show_ready),
    ]


def supervisor_routes(workers: AllWorkers) -> list[Route]:
    async def show_status(request: Request) -> Response:
        return Response(json.dumps(await workers.status()))

    async def show_statistics(request: Request) -> Response:
        return Response(json.dumps(await workers.statistics()))

    return [Route("/status", show_status), Route(STATISTICS, show_statistics)]
