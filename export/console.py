"""What people see of a build: bars while it works, tables of what it proved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from convoy.v1 import classifier_pb2 as pb
from export.checkpoints.download import Received

WIDTH = 160  # of a table that goes into a file


@dataclass(frozen=True)
class Published:
    folder: Path
    model: pb.Model
    runtime: str = ""  # which runtime was built for, and why
    was_there: bool = False  # an identical build had published it already


@dataclass(frozen=True)
class Built:
    """One row of the table that several builds end in."""

    name: str
    precision: str
    seconds: float
    published: Published | None = None
    error: str = ""


# ------------------------------------------------------------------------------ while it works


class Bars:
    """On stderr, and for people alone; stdout is for the result."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=20),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def steps(self, title: str, total: int) -> Callable[[str], None]:
        """Counts the steps of one build, each by its name as it begins."""
        task = self._progress.add_task(title, total=total)
        begun = 0

        def step(description: str) -> None:
            nonlocal begun
            self._progress.update(task, description=f"{title}: {description}", completed=begun)
            begun += 1

        return step

    def progress(self, what: str, done: int, total: int) -> None:
        """A bar of its own below the steps; it leaves when it is full."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what)
        self._progress.update(
            self._tasks[what],
            description=f"{what}: {done} of {total}",
            completed=done,
            total=total,
            visible=done < total,
        )

    @property
    def received(self) -> Received:
        """The same for downloads, whose length the server may not tell."""

        def show(file: str, there: int, total: int | None) -> None:
            if file not in self._tasks:
                self._tasks[file] = self._progress.add_task(file)
            size = f"{there / 1e6:.1f} MB" + (f" of {total / 1e6:.1f}" if total else "")
            self._progress.update(
                self._tasks[file], description=f"{file}: {size}", completed=there, total=total
            )

        return show


# ------------------------------------------------------------------------------ when it is done


def show(published: Published) -> None:
    """What was published, the ladder as a table, and what the weights are."""
    print("\n".join(heading(published)))
    show_rungs(published.model.parity)
    print("\n".join(facts_of(published.model.manifest)))


def heading(published: Published) -> list[str]:
    manifest = published.model.manifest
    made = "already published, by the same build" if published.was_there else "published"
    if manifest.format == "rtx":
        made = "written, and not published, since Triton does not load it"
    file = next(published.folder.rglob("model.*"), None)
    size = f", {file.stat().st_size / 1e6:.1f} MB" if file else ""
    lines = [f"{published.folder}: {made}, {manifest.precision} {manifest.format}{size}"]
    return lines + ([f"  runtime: {published.runtime}"] if published.runtime else [])


def show_rungs(rungs: Sequence[pb.ParityRung]) -> None:
    table = _table("rung", "images", "batches", "top-1", "top-5", "difference", "allowed", "worst")
    for rung in rungs:
        batches = ", ".join(map(str, rung.batch_sizes))
        if rung.batch_sizes_seen:
            batches += f" (rode by {', '.join(map(str, rung.batch_sizes_seen))})"
        table.add_row(
            rung.name,
            str(rung.images),
            batches,
            f"{rung.top1_agreement:.1%}",
            f"{rung.top5_agreement:.1%}",
            f"{rung.largest_difference:.1e}",
            "reported only" if rung.reported_only else f"{rung.tolerance:g}",
            rung.worst_image,
        )
    _print(table)


def facts_of(manifest: pb.Manifest) -> list[str]:
    lines = [
        f"  {measured.correct} of {measured.total} right "
        f"({measured.correct / measured.total:.1%}): {measured.measured}"
        for measured in manifest.accuracy
    ]
    if manifest.HasField("calibration"):
        lines.append(
            f"  calibrated on {manifest.calibration.images} pictures; "
            f"{manifest.calibration.refused} more were left out, since the gateway refuses them"
        )
    if manifest.weights.source == "random":
        return [*lines, "  weights: random, so that no answer of this version means anything"]
    return [*lines, f"  weights: {manifest.weights.source} ({manifest.weights.file})"]


def show_all(builds: Sequence[Built]) -> None:
    """The table that several builds end in."""
    table = _table("network", "precision", "seconds", "worst rung", "result")
    for built in builds:
        rungs = built.published.model.parity if built.published else []
        judged = [rung for rung in rungs if not rung.reported_only]
        worst = max(judged, key=lambda rung: rung.largest_difference / rung.tolerance, default=None)
        table.add_row(
            built.name,
            built.precision,
            f"{built.seconds:.1f}",
            f"{worst.largest_difference:.1e} of {worst.tolerance:g}" if worst else "",
            _result(built),
        )
    _print(table)


def _result(built: Built) -> str:
    if not built.published:
        return f"FAILED: {built.error}"
    name = built.published.folder.name
    return f"{name}, already published" if built.published.was_there else name


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _print(table: Table) -> None:
    console = Console()
    (console if console.is_terminal else Console(width=WIDTH)).print(table)
