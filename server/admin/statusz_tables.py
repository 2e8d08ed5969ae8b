"""The facts of the status page as tables, in text and in HTML."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from server.observability import logs
from server.observability.metrics import Facts

# The format of rich's export: braces of the style sheet are doubled.
PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Convoy</title>
<style>
body {{ font: 15px/1.4 sans-serif; margin: 2em; color-scheme: light dark }}
pre {{ overflow-x: auto }}
</style>
<h1>Convoy</h1>
<pre>{code}</pre>
</html>
"""
MAX_WIDTH = 10_000  # characters: no cell is ever wrapped


def render_text(facts: Facts) -> str:
    lines = record(facts).export_text().splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


def render_html(facts: Facts) -> str:
    return record(facts).export_html(code_format=PAGE, inline_styles=True)


def record(facts: Facts) -> Console:
    console = Console(record=True, file=io.StringIO(), width=MAX_WIDTH, color_system=None)
    for table in build_tables(facts):
        console.print(table)
        console.print()
    return console


def build_tables(facts: Facts) -> list[Table]:
    models, workers = facts["models"], facts.get("workers", [])
    return [
        build_table("Gateway", ["", ""], facts["gateway"].items()),
        *([build_table("Workers", WORKER_HEADS, map(worker_row, workers))] if workers else []),
        build_table("Runners", RUNNER_HEADS, map(runner_row, facts["runners"])),
        build_table("Models", VERSION_HEADS, map(version_row, models)),
        build_table(
            "Parity", PARITY_HEADS, (row for model in models for row in parity_rows(model))
        ),
        build_table("Traffic since the start", TRAFFIC_HEADS, map(traffic_row, facts["traffic"])),
        build_table("Settings", ["", ""], facts["settings"].items()),
    ]


def build_table(title: str, heads: Sequence[str], rows: Iterable[Iterable[object]]) -> Table:
    table = Table(
        *(Column(head, no_wrap=True) for head in heads),
        title=title.upper(),
        title_justify="left",
        title_style="none",
        header_style="none",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        show_header=any(heads),
        pad_edge=False,
    )
    for row in rows:
        table.add_row(*(Text(logs.escaped(to_text(cell))) for cell in row))
    return table


def to_text(cell: object) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, list):
        return ", ".join(map(str, cell))
    return "" if cell is None else str(cell)


WORKER_HEADS = ["worker", "process", "accepts connections", "restarts"]


def worker_row(facts: Facts) -> list[object]:
    return [facts["worker"], facts["process"], facts["is_listening"], facts["restarts"]]


RUNNER_HEADS = ["runner", "reachable", "repository", "in flight", "images", "why not"]


def runner_row(facts: Facts) -> list[object]:
    images = [f"{outcome} {count}" for outcome, count in facts["images"].items()]
    return [
        facts["name"],
        facts["is_reachable"],
        facts["has_repository"],
        facts["in_flight"],
        images,
        facts["fault"],
    ]


VERSION_HEADS = [
    *("model", "version", "state", "default", "precision", "weights", "runtime", "device"),
    *("manifest", "why not ready"),
]


def version_row(facts: Facts) -> list[object]:
    weights = facts.get("weights", "")
    return [
        facts["model"],
        facts["version"],
        facts["state"],
        "default" if facts["is_default"] else "",
        facts.get("precision"),
        "RANDOM: answers are meaningless" if weights == "random" else weights,
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


def traffic_row(facts: Facts) -> list[object]:
    errors = [f"{reason} {count}" for reason, count in facts["errors"].items()]
    name = facts["model"] or "(no such model)"
    return [name, facts["requests"], errors, facts["p50_ms"], facts["p99_ms"]]
