"""The admin port of the supervisor, which asks all workers and answers for the whole."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import httpx
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from server.admin.collectors import Snapshot
from server.admin.statusz import answer
from server.core.status import Facts, describe_traffic
from server.http_api.browsers import BrowserGuard, BrowserGuardMiddleware
from server.http_api.server import HttpServer
from server.observability.metrics import summarize
from server.settings import Settings
from server.workers.facts import merge_facts
from server.workers.supervised import SupervisedWorker
from server.workers.totals import Process, Totals

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
# A worker that takes longer is counted as one that does not answer.
ANSWER_TIMEOUT_S = 5.0


class AllWorkers:
    """What all workers together are."""

    def __init__(self, workers: Sequence[SupervisedWorker], settings: Settings) -> None:
        self._workers = workers
        self._settings = settings
        self._totals = Totals()
        self._adding_up = asyncio.Lock()

    @property
    def is_draining(self) -> bool:
        return any(worker.is_stopping for worker in self._workers)

    async def why_not_ready(self) -> str:
        """Empty: all that listen are ready, and one does."""
        if self.is_draining:
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
            sum(worker.listening.is_set() for worker in workers),
        )
        restarts = CounterMetricFamily(
            "convoy_worker_restarts",
            "Processes of workers that replaced one that had ended",
            sum(worker.restarts for worker in workers),
        )
        return [*await self._sum(), listening, restarts]

    async def facts(self) -> Facts:
        answers = await self._ask("/statusz", "application/json")
        summaries = summarize(await self._sum())
        traffic = [describe_traffic(*item) for item in sorted(summaries.items())]
        merged = merge_facts([response.json() for response in answers.values()])
        workers = [describe_worker(worker) for worker in self._workers]
        if self.is_draining:
            merged["gateway"] |= {"is_ready": False, "why_not_ready": "shutting down"}
        settings = self._settings.model_dump(mode="json", exclude_none=True)
        return merged | {"traffic": traffic, "workers": workers, "settings": settings}

    async def _sum(self) -> list[Metric]:
        async with self._adding_up:
            answers = await self._ask("/metrics", OPEN_METRICS)
            texts = {process: response.text for process, response in answers.items()}
            running = [process_of(worker) for worker in self._workers]
            return await asyncio.to_thread(self._totals.add_up, texts, running)

    async def _ask(self, path: str, accept: str) -> Mapping[Process, httpx.Response]:
        """The answers of those that listen and answer in time."""
        workers = [worker for worker in self._workers if worker.listening.is_set()]
        processes = [process_of(worker) for worker in workers]
        responses = await asyncio.gather(*(ask(worker, path, accept) for worker in workers))
        answers = zip(processes, responses, strict=True)
        return {process: response for process, response in answers if response is not None}


def process_of(worker: SupervisedWorker) -> Process:
    return worker.number, worker.restarts


async def ask(worker: SupervisedWorker, path: str, accept: str) -> httpx.Response | None:
    socket_path = worker.settings.metrics_address.removeprefix("unix:")
    transport = httpx.AsyncHTTPTransport(uds=socket_path, verify=False)
    try:
        async with httpx.AsyncClient(transport=transport, timeout=ANSWER_TIMEOUT_S) as client:
            return await client.get(f"http://localhost{path}", headers={"accept": accept})
    except httpx.HTTPError:
        return None


def describe_worker(worker: SupervisedWorker) -> Facts:
    return {
        "worker": worker.number,
        "process": worker.pid,
        "is_listening": worker.listening.is_set(),
        "restarts": worker.restarts,
    }


def open_admin_port(workers: Sequence[SupervisedWorker], settings: Settings) -> HttpServer:
    """
    Raises:
        StartFailed: the port is in use.
    """
    app = create_admin_app(AllWorkers(workers, settings), settings)
    return HttpServer(app, settings.metrics_address, "--metrics-address", settings)


def create_admin_app(workers: AllWorkers, settings: Settings) -> Starlette:
    async def show_metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        text = await asyncio.to_thread(encode, Snapshot(await workers.metrics()))
        return Response(text, headers={"content-type": content_type})

    async def show_status(request: Request) -> Response:
        return answer(await workers.facts(), request.headers.get("accept", ""))

    async def show_live(request: Request) -> Response:
        return PlainTextResponse("live\n")

    async def show_ready(request: Request) -> Response:
        if reason := await workers.why_not_ready():
            return PlainTextResponse(f"not ready: {reason}\n", 503)
        return PlainTextResponse("ready\n")

    routes = {
        "/metrics": show_metrics,
        "/statusz": show_status,
        "/livez": show_live,
        "/readyz": show_ready,
    }
    guard = BrowserGuard(settings, settings.metrics_address)
    return Starlette(
        routes=[Route(path, endpoint) for path, endpoint in routes.items()],
        middleware=[Middleware(BrowserGuardMiddleware, guard=guard)],
    )
