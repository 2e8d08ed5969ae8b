"""The page for the operator: what is served, what is not and why, and how it goes.

One set of facts: as HTML for a browser, as JSON for a program, as text for curl.
"""

from __future__ import annotations

import asyncio
import html
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from convoy.v1 import classifier_pb2 as pb
from server.core.admission import Admission
from server.observability import logs
from server.observability.metrics import Metrics, Summary
from server.settings import Settings
from server.versions.manager import VersionManager
from server.versions.pool import Pool

# No script, nothing from elsewhere, in no frame: whatever gets into the page stays text.
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
STYLE = """\
body { font: 15px/1.4 sans-serif; margin: 2em; color-scheme: light dark }
table { border-collapse: collapse }
th, td { text-align: left; vertical-align: top; padding: .2em 1em .2em 0 }
th, td { border-bottom: 1px solid #8888 }"""

Facts = dict[str, Any]


def statusz_route(
    pool: Pool,
    metrics: Metrics,
    admission: Admission,
    settings: Settings,
    is_ready: Callable[[], bool],
) -> Route:
    started_s = time.monotonic()

    async def show_status(request: Request) -> Response:
        summaries = await asyncio.to_thread(metrics.summaries)
        facts: Facts = {
            "gateway": facts_of_gateway(pool, admission, is_ready(), time.monotonic() - started_s),
            "runners": [facts_of_runner(*each) for each in pool.managers.items()],
            "models": [
                facts_of_version(pool.describe(model.name, model.version), pool)
                for model in pool.list()
            ],
            "traffic": [facts_of_traffic(*each) for each in sorted(summaries.items())],
            "settings": settings.model_dump(mode="json", exclude_none=True),
        }
        return answer(facts, request.headers.get("accept", ""))

    return Route("/statusz", show_status)


def answer(facts: Facts, accept: str) -> Response:
    if "text/html" in accept:
        return HTMLResponse(as_html(tables_of(facts)), headers=HEADERS)
    if "application/json" in accept:
        return JSONResponse(facts, headers=HEADERS)
    return PlainTextResponse(as_text(tables_of(facts)), headers=HEADERS)


# ---------------------------------------------------------------- the facts


def facts_of_gateway(pool: Pool, admission: Admission, is_ready: bool, uptime_s: float) -> Facts:
    why_not = "shutting down" if admission.is_draining else pool.why_not_ready()
    return {
        "version": version("convoy-serving"),
        "uptime_s": round(uptime_s, 1),
        "is_ready": is_ready,
        "why_not_ready": "" if is_ready else why_not,
        "in_flight": admission.in_flight,
        "in_flight_bytes": admission.in_flight_bytes,
        "log_lines_lost": logs.lost_lines(),
    }


def facts_of_runner(name: str, manager: VersionManager) -> Facts:
    return {
        "name": name,
        "is_reachable": not manager.runner_fault,
        "fault": manager.runner_fault,
        "in_flight": manager.runner.in_flight,
        "images": dict(manager.runner.outcomes),
    }


def facts_of_version(model: pb.Model, pool: Pool) -> Facts:
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
            "parity": [facts_of_rung(rung) for rung in model.parity],
        }
    return facts


def facts_of_rung(rung: pb.ParityRung) -> Facts:
    return {
        "name": rung.name,
        "images": rung.images,
        "largest_difference": rung.largest_difference,
        "tolerance": rung.tolerance,
        "reported_only": rung.reported_only,
    }


def facts_of_traffic(model: str, summary: Summary) -> Facts:
    return {
        "model": model,
        "requests": summary.outcomes.total(),
        "errors": {reason: n for reason, n in summary.outcomes.items() if reason != "OK"},
        "p50_ms": summary.p50_s and round(summary.p50_s * 1e3, 1),
        "p99_ms": summary.p99_s and round(summary.p99_s * 1e3, 1),
    }


# ---------------------------------------------------------------- as tables


@dataclass(frozen=True)
class Table:
    title: str
    rows: Sequence[Sequence[str]]  # the first one holds the heads


def tables_of(facts: Facts) -> list[Table]:
    models = facts["models"]
    return [
        table("Gateway", ["", ""], facts["gateway"].items()),
        table("Runners", RUNNER_HEADS, map(row_of_runner, facts["runners"])),
        table("Models", VERSION_HEADS, map(row_of_version, models)),
        table("Parity", PARITY_HEADS, (row for model in models for row in parity_rows(model))),
        table("Traffic since the start", TRAFFIC_HEADS, map(row_of_traffic, facts["traffic"])),
        table("Settings", ["", ""], facts["settings"].items()),
    ]


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    return Table(title, [heads, *([shown(cell) for cell in row] for row in rows)])


def shown(cell: object) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, list):
        return ", ".join(map(str, cell))
    return "" if cell is None else str(cell)


RUNNER_HEADS = ["runner", "reachable", "in flight", "images", "why not"]


def row_of_runner(facts: Facts) -> list[object]:
    images = [f"{outcome} {count}" for outcome, count in facts["images"].items()]
    return [facts["name"], facts["is_reachable"], facts["in_flight"], images, facts["fault"]]


VERSION_HEADS = [
    *("model", "version", "state", "default", "precision", "weights", "runtime", "device"),
    *("manifest", "why not ready"),
]


def row_of_version(facts: Facts) -> list[object]:
    weights = facts.get("weights", "")
    return [
        facts["model"],
        facts["version"],
        facts["state"],
        "default" if facts["is_default"] else "",
        facts.get("precision"),
        "RANDOM: no answer means anything" if weights == "random" else weights,
        facts.get("runtime"),
        facts.get("device"),
        facts.get("manifest_digest", "")[:12],
        facts["why_not_ready"],
    ]


PARITY_HEADS = ["model", "version", "rung", "images", "largest difference", "allowed"]


def parity_rows(facts: Facts) -> list[list[object]]:
    return [
        [
            facts["model"],
            facts["version"],
            rung["name"],
            rung["images"],
            f"{rung['largest_difference']:.2g}",
            "reported only" if rung["reported_only"] else f"{rung['tolerance']:.2g}",
        ]
        for rung in facts.get("parity", [])
    ]


TRAFFIC_HEADS = ["model", "requests", "errors", "p50 ms", "p99 ms"]


def row_of_traffic(facts: Facts) -> list[object]:
    errors = [f"{reason} {count}" for reason, count in facts["errors"].items()]
    name = facts["model"] or "(no such model)"
    return [name, facts["requests"], errors, facts["p50_ms"], facts["p99_ms"]]


# ---------------------------------------------------------------- as a page


def as_text(tables: Iterable[Table]) -> str:
    return "\n".join(map(table_as_text, tables))


def table_as_text(table: Table) -> str:
    cells = [[logs.escaped(cell) for cell in row] for row in table.rows if any(row)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([table.title, "=" * len(table.title), *lines, ""])


def as_html(tables: Iterable[Table]) -> str:
    body = "\n".join(map(table_as_html, tables))
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Convoy</title>\n'
        f"<style>\n{STYLE}\n</style>\n<h1>Convoy</h1>\n{body}\n</html>\n"
    )


def table_as_html(table: Table) -> str:
    heads, *rows = table.rows
    lines = [row_as_html("th", heads)] if any(heads) else []
    lines += [row_as_html("td", row) for row in rows]
    return f"<h2>{html.escape(table.title)}</h2>\n<table>\n" + "\n".join(lines) + "\n</table>"


def row_as_html(tag: str, cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
