"""`convoy evaluate`: how well a running gateway classifies labelled pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convoy.tables import plain_console
from convoy.terminal import print_error, printable
from convoy.v1 import classifier_pb2 as pb
from export.bootstrap import require_packages
from export.cli_options import Json, ServedModel, ServedVersion, Server
from export.errors import EvaluationError, ExportError

if TYPE_CHECKING:
    from export.evaluation.asking import Evaluation, Survey
    from export.evaluation.results import ResultsFile
    from export.evaluation.tally import Tally

INCOMPLETE, INTERRUPTED = 3, 130  # exit codes
MAX_CLASSES = 20  # of the table


Pictures = Annotated[
    Path,
    typer.Argument(
        metavar="DIR|TRUTH.csv",
        help="A folder that has one per label, named for it or its id; or a CSV file with the "
        "columns path and label, whose paths begin at its folder.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="RESULTS.jsonl",
        dir_okay=False,
        help="Write each answer there. What the file has is not asked again, so that the same "
        "command continues what was stopped.",
    ),
]
Concurrency = Annotated[
    int, typer.Option(min=1, max=256, help="How many pictures are asked about at once.")
]


def evaluate(
    name: ServedModel,
    pictures: Pictures,
    version: ServedVersion = "",
    server: Server = "localhost:8081",
    out: Out = None,
    concurrency: Concurrency = 16,
    as_json: Json = False,
) -> None:
    """Measure a running gateway with labelled pictures: top-1, top-5, confusions, calibration.

    Exit code 0: every picture was measured; 3: some were left out, and the output has the reasons;
    1: the evaluation failed; 2: wrong usage; 130: it was interrupted. With --out, the same command
    continues after 1 and 130 (docs/evaluating.md).

    Examples:

        convoy evaluate resnet152 photos/val

        convoy evaluate resnet152 truth.csv --version 3 --out results.jsonl --json
    """
    from convoy.errors import ConvoyError

    require_packages()
    try:
        model, evaluation = run(name, pictures, version, server, out, concurrency)
    except (ConvoyError, ExportError, OSError) as error:
        print_error(error)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        print_error(
            f"Interrupted: the same command continues after the answers in {out}."
            if out
            else "Interrupted: with --out the answers would have been kept."
        )
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print(json.dumps(to_json(model, evaluation), indent=2))
    else:
        print_evaluation(model, evaluation)
    if not evaluation.tally.total:
        print_error("No picture was measured.")
        raise typer.Exit(1)
    raise typer.Exit(INCOMPLETE if evaluation.tally.excluded else 0)


def run(
    name: str, pictures: Path, version: str, server: str, out: Path | None, concurrency: int
) -> tuple[pb.Model, Evaluation]:
    """
    Raises:
        ConvoyError, ExportError, OSError: the gateway, the pictures or the file of results fail.
    """
    from contextlib import nullcontext

    from convoy import Client
    from export.console import ProgressBars
    from export.evaluation import asking
    from export.evaluation.results import ResultsFile
    from export.evaluation.truth import Classes, Truth

    truth = Truth(pictures)
    with Client(server) as client, ProgressBars(name, 2) as bars:
        model = client.model(name, version)
        check_ready(model)
        bars.step("Listing the pictures")
        surveyed = asking.survey(truth, Classes(model.labels))
        warn(surveyed)
        bars.step(f"version {model.version}, manifest {model.manifest_digest[:12]}")
        opened: ResultsFile | nullcontext[None] = ResultsFile(out, model) if out else nullcontext()
        with opened as results:
            return model, asking.evaluate(
                client,
                model,
                truth,
                results,
                total=surveyed.total,
                concurrency=concurrency,
                reporter=bars,
            )


def check_ready(model: pb.Model) -> None:
    """
    Raises:
        EvaluationError: it cannot answer; what it is, its labels included, may not be known yet.
    """
    if model.state != pb.STATE_READY:
        reason = model.state_reason or pb.State.Name(model.state)
        raise EvaluationError(f"{model.name} version {model.version} is not ready: {reason}.")


def warn(surveyed: Survey) -> None:
    """At the beginning, since an evaluation may take hours."""
    if surveyed.unknown:
        print_error(
            f"{surveyed.unknown} of {surveyed.total} pictures are left out, since their labels are "
            f"none of the network's: {'; '.join(surveyed.examples)}."
        )


# ------------------------------------------------------------------------------ the output


def to_json(model: pb.Model, evaluation: Evaluation) -> dict[str, Any]:
    from export.evaluation.tally import as_dict

    return {
        "model": model.name,
        "version": model.version,
        "manifest_digest": model.manifest_digest,
        **as_dict(evaluation.tally, model.labels),
        "resumed": evaluation.resumed,
        "retries": dict(evaluation.retries),
        "default_version": evaluation.default_version,
    }


def print_evaluation(model: pb.Model, evaluation: Evaluation) -> None:
    from export.console import table
    from export.evaluation.tally import BINS, CONFUSIONS

    tally, labels, console = evaluation.tally, model.labels, plain_console()
    manifest = model.manifest_digest[:12]
    print(printable(f"{model.name} version {model.version}, manifest {manifest}"))
    for line in summary(tally):
        print(f"  {line}, {BINS} bins" if line.startswith("calibration") else f"  {line}")
    print_classes(tally, labels)
    if tally.confusions:
        confusions = table("label", "answer", numbers=("images",))
        for (truth, best), images in tally.confusions.most_common(CONFUSIONS):
            confusions.add_row(labels[truth].name, labels[best].name, str(images))
        console.print(confusions)
        worst = table("most confident wrong answers", "label", "answer", numbers=("score",))
        for result in tally.worst:
            answer, score = labels[result.best[0]].name, f"{result.scores[0]:.4f}"
            worst.add_row(result.path, result.label, answer, score)
        console.print(worst)
    print_remarks(model, evaluation)


def print_classes(tally: Tally, labels: Sequence[pb.Label]) -> None:
    """Those that are answered worst, if there are many."""
    from export.console import table

    measured = [index for index, class_ in enumerate(tally.classes) if class_.total]
    if len(measured) > MAX_CLASSES:
        print(f"  the worst {MAX_CLASSES} of {len(measured)} classes; --json has all")
        measured.sort(key=lambda index: tally.classes[index].top1 / tally.classes[index].total)
    classes = table("label", numbers=("images", "top-1", "top-5"))
    for index in measured[:MAX_CLASSES]:
        class_ = tally.classes[index]
        shares = (share(class_.top1, class_.total), share(class_.top5, class_.total))
        classes.add_row(labels[index].name, str(class_.total), *shares)
    plain_console().print(classes)


def summary(tally: Tally) -> list[str]:
    if not tally.total:
        return []
    lines = [f"top-1 {share(tally.top1, tally.total)} ({tally.top1} of {tally.total})"]
    if len(tally.classes) > 5:
        lines.append(f"top-5 {share(tally.top5, tally.total)} ({tally.top5} of {tally.total})")
    return [*lines, f"calibration error {tally.calibration_error:.2%}"]


def share(part: int, total: int) -> str:
    return f"{part / total:.2%}"


def print_remarks(model: pb.Model, evaluation: Evaluation) -> None:
    for reason, images in evaluation.tally.excluded.most_common():
        print_error(f"Left out, {reason}: {images}")
        for example in evaluation.tally.examples[reason]:
            print_error(f"  {example}")
    if evaluation.resumed:
        print_error(f"{evaluation.resumed} answers were in the file already.")
    if evaluation.retries:
        reasons = ", ".join(f"{kind} {n} times" for kind, n in evaluation.retries.items())
        print_error(f"The gateway was asked again after a pause: {reasons}.")
    if model.is_default and evaluation.default_version != model.version:
        print_error(
            f"Meanwhile version {evaluation.default_version} became the default; these are the "
            f"figures of version {model.version}."
        )
