"""What the turns say: rates and latencies of each peer, and Convoy's over those of the others."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bench.charts import render_chart, render_intervals
from bench.peers.contest import Round, Turn, is_disturbed
from bench.peers.peers import OURS, OURS_THROUGH_TRITON, TRITON
from bench.ratios import Median, median

# What Convoy's rate over that of a peer should be at least.
GOALS = {
    "lenet5": {"FastAPI": 1.3, "LitServe": 1.3, "BentoML": 1.3, "mosec": 1.0},
    "resnet50": {"FastAPI": 1.0, "LitServe": 1.0, "BentoML": 1.0, "mosec": 1.0, TRITON: 0.95},
}


MIN_PAIRS = 6  # the range of fewer is no 95 % interval


@dataclass(frozen=True)
class Row:
    """A peer in one network's rounds; ratios are Convoy's over the peer's, in the same round."""

    network: str
    peer: str
    variant: str
    per_s: float  # these three are medians of the turns
    p50_ms: float
    p99_ms: float
    rate: Median | None = None
    p99: Median | None = None
    goal: float | None = None


def compare(rounds: Sequence[Round]) -> list[Row]:
    """A row per peer that took part."""
    by_peer = [{turn.peer: turn for turn in turns} for turns in rounds]
    return [to_row([turns[peer] for turns in by_peer], by_peer) for peer in sorted(by_peer[0])]


def to_row(turns: Sequence[Turn], by_peer: Sequence[dict[str, Turn]]) -> Row:
    first = turns[0]
    row = Row(
        first.network,
        first.peer,
        first.variant,
        statistics.median(turn.per_s for turn in turns),
        statistics.median(turn.p50_ms for turn in turns),
        statistics.median(turn.p99_ms for turn in turns),
    )
    ours = OURS_THROUGH_TRITON if first.peer == TRITON else OURS
    if first.peer == ours or ours not in by_peer[0] or len(turns) < MIN_PAIRS:
        return row

    def ratio(figure: Callable[[Turn], float]) -> Median:
        return median([figure(turns[ours]) / figure(turns[first.peer]) for turns in by_peer])

    return replace(
        row,
        rate=ratio(lambda turn: turn.per_s),
        p99=ratio(lambda turn: turn.p99_ms),
        goal=GOALS.get(first.network, {}).get(first.peer),
    )


def verdict(ratio: Median, more: str, less: str) -> str:
    """What the interval allows to say."""
    if ratio.low > 1:
        return more
    return less if ratio.high < 1 else "not distinguishable"


def render_table(rows: Sequence[Row]) -> str:
    """As Markdown."""
    head = ["network", "server", "set-up", "images/s", "p50, ms", "p99, ms"]
    head += ["rate of Convoy over its", "p99 of Convoy over its", "goal"]
    lines = [head, ["---"] * 3 + ["---:"] * 6]
    for row in rows:
        figures = [
            f"{value:.{0 if value >= 100 else 1}f}" for value in (row.per_s, row.p50_ms, row.p99_ms)
        ]
        ratios = ["", ""]
        if row.rate and row.p99:
            ratios = [
                f"{row.rate.value:.2f} ({row.rate.low:.2f} to {row.rate.high:.2f}): "
                f"{verdict(row.rate, 'faster', 'slower')}",
                f"{row.p99.value:.2f} ({row.p99.low:.2f} to {row.p99.high:.2f}): "
                f"{verdict(row.p99, 'longer', 'shorter')}",
            ]
        goal = f"{row.goal:g}" if row.goal else ""
        lines.append([row.network, row.peer, row.variant, *figures, *ratios, goal])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def count_disturbed(rounds: Sequence[Round]) -> str:
    n = sum(map(is_disturbed, rounds))
    return f"{len(rounds)} rounds, {n} of them while other processes used the cores"


def draw(rows: Sequence[Row]) -> str:
    """Renders an SVG: Convoy's rate over that of each peer, a panel per network."""
    panels = []
    for network in GOALS:
        ratios = {row.peer: row.rate for row in rows if row.network == network and row.rate}
        panels.append(render_intervals(f"{network}: Convoy's rate over that of", ratios))
    return render_chart(panels[0], panels[1])
