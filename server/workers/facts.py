"""The facts of /statusz of all workers as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from server.observability.metrics import Facts

READY = "READY"


def merge_facts(parts: Sequence[Facts]) -> Facts:
    """Traffic is not among them, since its quantiles cannot be merged."""
    return {
        "gateway": merge_gateways([part["gateway"] for part in parts]),
        "runners": [merge_runners(rows) for rows in alike(parts, "runners", "name")],
        "models": [merge_versions(rows) for rows in alike(parts, "models", "model", "version")],
    }


def alike(parts: Iterable[Facts], table: str, *columns: str) -> Iterable[list[Facts]]:
    """The rows of a table that have these columns in common."""
    groups: dict[tuple[Any, ...], list[Facts]] = {}
    for row in (row for part in parts for row in part[table]):
        groups.setdefault(tuple(row[column] for column in columns), []).append(row)
    return groups.values()


def merge_gateways(rows: Sequence[Facts]) -> Facts:
    if not rows:
        return {"is_ready": False, "why_not_ready": "no worker answers"}
    return rows[0] | {
        "uptime_s": collect(rows, "uptime_s", max),
        "is_ready": collect(rows, "is_ready", all),
        "why_not_ready": first_of(rows, "why_not_ready"),
        **{
            name: collect(rows, name, sum)
            for name in ("in_flight", "in_flight_bytes", "log_lines_lost")
        },
    }


def merge_runners(rows: Sequence[Facts]) -> Facts:
    images: Counter[str] = Counter()
    for row in rows:
        images.update(row["images"])
    return rows[0] | {
        "is_reachable": collect(rows, "is_reachable", all),
        "has_repository": collect(rows, "has_repository", all),
        "fault": first_of(rows, "fault"),
        "in_flight": collect(rows, "in_flight", sum),
        "images": dict(images),
    }


def merge_versions(rows: Sequence[Facts]) -> Facts:
    """Where a version is not ready in one worker, that is what operators want to know."""
    unready = [row for row in rows if row["state"] != READY]
    return (unready or rows)[0] | {"is_default": collect(rows, "is_default", all)}


def collect(rows: Iterable[Facts], name: str, function: Callable[[Iterable[Any]], Any]) -> Any:
    return function(row[name] for row in rows)


def first_of(rows: Iterable[Facts], name: str) -> str:
    """The first that is not empty."""
    return next((row[name] for row in rows if row[name]), "")
