"""FastAPI: what blocks runs in the thread pool, with one thread per core of the worker.

Requests are not batched, since nothing in the framework does that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool

from bench.peers.apps.network import HOST, PORT, THREADS, WORKERS, Answer, Network, Preparation


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.prepare, app.state.network = Preparation(), Network(threads=1)
    current_default_thread_limiter().total_tokens = THREADS
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/classify")
async def classify(request: Request) -> Answer:
    answer: Answer = await run_in_threadpool(compute, await request.body())
    return answer


def compute(content: bytes) -> Answer:
    answers: list[Answer] = app.state.network.classify([app.state.prepare(content)])
    return answers[0]


if __name__ == "__main__":
    name = "bench.peers.apps.with_fastapi:app"
    uvicorn.run(name, host=HOST, port=PORT, workers=WORKERS, log_level="warning")
