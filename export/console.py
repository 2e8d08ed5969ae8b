"""What people see: progress bars on stderr, tables and the report of a build on stdout."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from convoy.preparation import describe_preparation
from convoy.tables import PlainTable, plain_console
from convoy.terminal import print_error, printable
from convoy.v1 import classifier_pb2 as pb
from export.progress import Reporter

# ------------------------------------------------------------------------------ for all commands


def table(*columns: str, numbers: Collection[str] = ()) -> PlainTable:
    """An empty table; the columns of `numbers` follow the others, flush right."""
    empty = PlainTable(box=box.SIMPLE_HEAD)
    for column in columns:
        empty.add_column(column, overflow="fold")
    for number in numbers:
        empty.add_column(number, justify="right", no_wrap=True)
    return empty


class ProgressBars(Reporter):
    """A bar for the steps, and one for each task within them. On a terminal's stderr alone."""

    def __init__(self, title: str, steps: int) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=20),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._title = title
        self._steps = self._progress.add_task(title, total=steps)
        self._begun = 0
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> ProgressBars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, name: str) -> None:
        description = f"{self._title}: {name}"
        self._progress.update(self._steps, description=description, completed=self._begun)
        self._begun += 1

    def progress(self, task: str, completed: int, total: int | None, unit: str = "") -> None:
        """The bar of a task disappears when it is full."""
        if task not in self._tasks:  # what was done before does not count for the speed
            self._tasks[task] = self._progress.add_task(task, completed=completed)
        speed = self._progress.tasks[self._progress.task_ids.index(self._tasks[task])].speed
        self._progress.update(
            self._tasks[task],
            description=printable(f"{task}: {_amount(completed, total, unit, speed)}"),
            completed=completed,
            total=total,
            visible=total is None or completed < total,
        )


def _amount(completed: int, total: int | None, unit: str, speed: float | None) -> str:
    if unit == "bytes":
        return f"{completed / 1e6:.1f} MB" + (f" of {total / 1e6:.1f}" if total else "")
    rate = f", {speed:.1f}/s" if unit == "pictures" and speed else ""
    return (f"{completed}" if total is None else f"{completed} of {total}") + rate


# ------------------------------------------------------------------------------ for builds


@dataclass(frozen=True)
class PublishedVersion:
    folder: Path
    model: pb.Model
    runtime: str = ""  # which runtime it was built for, and why
    was_published: bool = False  # an identical build had published it before


@dataclass(frozen=True)
class BuildResult:
    """One row of the table that several builds end in."""

    name: str
    precision: str
    seconds: float
    published: PublishedVersion | None = None
    error: str = ""


def print_version(published: PublishedVersion) -> None:
    """What was published, the ladder as a table, and what the weights are."""
    _print_lines(render_heading(published))
    print_rungs(published.model.parity)
    _print_lines(render_facts(published.model.manifest))
    _print_lines([f"  pictures: {describe_preparation(published.model)}"])
    if warning := render_assumed(published.model.manifest):
        print_error(warning)


def _print_lines(lines: Sequence[str]) -> None:
    print("\n".join(map(printable, lines)))


def render_heading(published: PublishedVersion) -> list[str]:
    manifest = published.model.manifest
    outcome = "already published, by the same build" if published.was_published else "published"
    if manifest.format == "rtx":
        outcome = "written, and not published, since Triton does not load it"
    file = next(published.folder.rglob("model.*"), None)
    size = f", {file.stat().st_size / 1e6:.1f} MB" if file else ""
    lines = [f"{published.folder}: {outcome}, {manifest.precision} {manifest.format}{size}"]
    return lines + ([f"  runtime: {published.runtime}"] if published.runtime else [])


def print_rungs(rungs: Sequence[pb.ParityRung]) -> None:
    numbers = ("images", "top-1", "top-5", "difference", "allowed")
    shown = table("rung", "batches", "worst image", numbers=numbers)
    for rung in rungs:
        batches = ", ".join(map(str, rung.batch_sizes))
        if rung.batch_sizes_seen:
            batches += f" (batched {', '.join(map(str, rung.batch_sizes_seen))})"
        shown.add_row(
            rung.name,
            batches,
            rung.worst_image,
            str(rung.images),
            f"{rung.top1_agreement:.1%}",
            f"{rung.top5_agreement:.1%}",
            f"{rung.largest_difference:.1e}",
            "reported only" if rung.reported_only else f"{rung.tolerance:g}",
        )
    plain_console().print(shown)


def render_facts(manifest: pb.Manifest) -> list[str]:
    lines = [
        f"  {measured.correct} of {measured.total} correct "
        f"({measured.correct / measured.total:.1%}): {measured.measured}"
        for measured in manifest.accuracy
    ]
    if manifest.HasField("evaluation"):
        lines += render_evaluation(manifest.evaluation)
    if manifest.HasField("calibration"):
        lines.append(
            f"  calibrated on {manifest.calibration.images} pictures; "
            f"{manifest.calibration.refused} more were left out, since the gateway refuses them"
        )
    if manifest.weights.source == "random":
        return [*lines, "  weights: random (answers are meaningless)"]
    return [*lines, f"  weights: {manifest.weights.source} ({manifest.weights.file})"]


def render_evaluation(evaluation: pb.Evaluation) -> list[str]:
    correct, images = evaluation.top1_correct, evaluation.images
    left_out = f"; {evaluation.excluded} were left out" if evaluation.excluded else ""
    lines = [
        f"  {correct} of {images} correct ({correct / images:.2%}), calibration error "
        f"{evaluation.calibration_error:.2%}: {evaluation.data}{left_out}"
    ]
    if evaluation.HasField("fp32"):
        fp32 = evaluation.fp32
        lines.append(
            f"  fp32: {fp32.top1_correct} correct; {fp32.lost} lost and {fp32.gained} gained, less "
            f"than {100 * fp32.drop_upper_bound:.2f} points (95 %)"
        )
    return lines


def render_assumed(manifest: pb.Manifest) -> str:
    """A warning, for weights of one's own; of random ones no answer means anything anyway."""
    assumed = manifest.preparation.assumed
    if not assumed or manifest.weights.source != "file":
        return ""
    return (
        f"WARNING: {manifest.weights.file} does not say how its pictures were prepared. Assumed: "
        f"{', '.join(assumed)}. If it was trained otherwise, its answers are worse than they could "
        "be: give --preprocessing FILE, or --resize, --crop and so on (--help)."
    )


def print_results(results: Sequence[BuildResult]) -> None:
    """The table that several builds end in; one build has been reported already."""
    if len(results) == 1:
        return
    shown = table("network", "precision", "seconds", "worst rung", "result")
    for result in results:
        rungs = result.published.model.parity if result.published else []
        judged = [rung for rung in rungs if not rung.reported_only]
        worst = max(judged, key=lambda rung: rung.largest_difference / rung.tolerance, default=None)
        shown.add_row(
            result.name,
            result.precision,
            f"{result.seconds:.1f}",
            f"{worst.largest_difference:.1e} of {worst.tolerance:g}" if worst else "",
            _outcome(result),
        )
    plain_console().print(shown)


def _outcome(result: BuildResult) -> str:
    if not result.published:
        return f"FAILED: {result.error}"
    name = result.published.folder.name
    return f"{name}, already published" if result.published.was_published else name
