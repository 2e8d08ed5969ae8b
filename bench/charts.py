"""A chart of two panels, as an SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.ratios import Median

PLOT_WIDTH, PLOT_HEIGHT = 300, 200  # of one panel's axes, in the drawing's units
LEFT, TOP, GAP = 50, 40, 70
LABEL_WIDTH = 130  # of the names in a panel of intervals
STEPS = [digit * 10**power for power in range(6) for digit in (1, 2, 3, 5, 6)]  # between two ticks
BLUE, ORANGE = "#0072b2", "#d55e00"  # distinguishable with colour blindness


def render_chart(left: str, right: str) -> str:
    """Renders two panels side by side."""
    width, height = LEFT + 2 * PLOT_WIDTH + GAP + 20, TOP + PLOT_HEIGHT + 50
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12" fill="#222">\n'
        '<rect width="100%" height="100%" fill="white"/>\n'
        f'<g transform="translate({LEFT} {TOP})">\n{left}</g>\n'
        f'<g transform="translate({LEFT + PLOT_WIDTH + GAP} {TOP})">\n{right}</g>\n</svg>\n'
    )


def render_panel(
    title: str,
    loads: Sequence[float],  # times the capacity
    values: Sequence[float],
    mark: tuple[float, str],
    colour: str,
) -> str:
    """Renders axes from 0, a level with its name, and a point per load."""
    highest = 1.1 * max(*values, mark[0])
    step = next(step for step in STEPS if 5 * step >= highest)
    top = 5 * step
    lines = [f'<text y="-14" font-size="14">{title}</text>']
    for number in range(6):
        y = round(PLOT_HEIGHT * (1 - number / 5), 1)
        lines.append(f'<path d="M0 {y}H{PLOT_WIDTH}" stroke="#ddd"/>')
        lines.append(f'<text x="-6" y="{y + 4}" text-anchor="end">{number * step}</text>')
    level = round(PLOT_HEIGHT * (1 - mark[0] / top), 1)
    lines.append(f'<path d="M0 {level}H{PLOT_WIDTH}" stroke="#888" stroke-dasharray="6 3"/>')
    lines.append(f'<text x="4" y="{level - 5}">{mark[1]}</text>')
    xs = [round(PLOT_WIDTH * (number + 0.5) / len(loads), 1) for number in range(len(loads))]
    points = [
        (x, round(PLOT_HEIGHT * (1 - value / top), 1)) for x, value in zip(xs, values, strict=True)
    ]
    digits = 1 if top < 100 else 0
    path = " ".join(f"{x},{y}" for x, y in points)
    lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    for (x, y), value, times in zip(points, values, loads, strict=True):
        lines.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>')
        lines.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{value:.{digits}f}</text>')
        below = f'y="{PLOT_HEIGHT + 18}" text-anchor="middle"'
        lines.append(f'<text x="{x}" {below}>{times:g}</text>')
    middle = f'x="{PLOT_WIDTH / 2}" y="{PLOT_HEIGHT + 36}" text-anchor="middle"'
    lines.append(f"<text {middle}>load, times the capacity</text>")
    return "\n".join(lines) + "\n"


def render_intervals(title: str, medians: Mapping[str, Median]) -> str:
    """Renders a line per name: a median and its interval, on an axis from 0, with a mark at 1."""
    highest = max((median.high for median in medians.values()), default=1.0)
    step = next(step for step in (0.2, 0.5, 1, 2, 5, 10, 20) if 5 * step >= 1.05 * highest)
    scale = (PLOT_WIDTH - LABEL_WIDTH) / (5 * step)
    lines = [f'<text y="-14" font-size="14">{title}</text>']
    for number in range(6):
        x = round(LABEL_WIDTH + number * step * scale, 1)
        lines.append(f'<path d="M{x} 0V{PLOT_HEIGHT}" stroke="#ddd"/>')
        below = f'y="{PLOT_HEIGHT + 18}" text-anchor="middle"'
        lines.append(f'<text x="{x}" {below}>{number * step:g}</text>')
    one = round(LABEL_WIDTH + scale, 1)
    lines.append(f'<path d="M{one} 0V{PLOT_HEIGHT}" stroke="#888" stroke-dasharray="6 3"/>')
    for number, (name, median) in enumerate(medians.items()):
        y = round(PLOT_HEIGHT * (number + 0.5) / len(medians), 1)
        low, middle, high = (
            round(LABEL_WIDTH + value * scale, 1)
            for value in (median.low, median.value, median.high)
        )
        lines.append(f'<text x="{LABEL_WIDTH - 8}" y="{y + 4}" text-anchor="end">{name}</text>')
        lines.append(f'<path d="M{low} {y}H{high}" stroke="{BLUE}" stroke-width="2"/>')
        lines.append(f'<circle cx="{middle}" cy="{y}" r="4" fill="{BLUE}"/>')
        lines.append(f'<text x="{high + 8}" y="{y + 4}">{median.value:.2f}</text>')
    return "\n".join(lines) + "\n"
