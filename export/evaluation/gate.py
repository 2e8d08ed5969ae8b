"""What a build measures with labelled pictures, and whether its network loses too much for it.

Both files are asked on this machine, the one in fp32 and the one that is to be served, about the
same pictures, which the gateway's own preprocessing has prepared. paired.py has the test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from convoy.v1 import classifier_pb2 as pb
from export.errors import EvaluationError
from export.evaluation.paired import Paired
from export.evaluation.tally import REFUSED, TOP, UNKNOWN_LABEL, UNREADABLE, Result, Tally
from export.evaluation.truth import Classes, Labelled, Truth, read_picture
from export.files import shown_name
from export.progress import SILENT, Reporter
from export.samples.gateway_preprocessing import prepare
from export.samples.images import Answer, Pixels

BATCH = 32  # pictures per process that prepares them; no more are held
REMEDY = "Give more pictures, a larger --max-drop or, for int8, other --calibration pictures"


def check_gate(evaluate: Path | None, max_drop: float | None, precision: str, format_: str) -> None:
    """
    Raises:
        EvaluationError: the options do not belong together.
    """
    if max_drop is not None and evaluate is None:
        raise EvaluationError("--max-drop needs --evaluate DIR, a folder of labelled pictures.")
    if max_drop is not None and precision == "fp32" and format_ == "onnx":
        raise EvaluationError("--max-drop compares with fp32: give --fp16 or --int8 with it.")
    if evaluate and format_ == "rtx":
        raise EvaluationError("--evaluate cannot run a TensorRT-RTX engine: omit it.")


# ------------------------------------------------------------------------------ measuring


def measure(
    truth: Truth,
    labels: Sequence[pb.Label],
    preprocessing: pb.Preprocessing,
    candidate: Answer,
    reference: Answer | None,  # the same network in fp32; None if the candidate is that
    *,
    max_batch_size: int,
    reporter: Reporter = SILENT,
) -> pb.Evaluation:
    """How the candidate classifies the pictures.

    Raises:
        EvaluationError: none of them can be measured.
    """
    total, done = sum(1 for _ in truth), 0
    tally, fp32 = Tally(len(labels)), pb.PairedComparison()
    classes = Classes(labels)
    for batch in in_batches(truth, BATCH):
        accepted, pixels = accept(batch, classes, preprocessing, tally)
        answers = answer(candidate, accepted, pixels, max_batch_size)
        for result in answers:
            tally.add(result)
        if reference:
            compare(answer(reference, accepted, pixels, max_batch_size), answers, fp32)
        done += len(batch)
        reporter.progress("Labelled pictures", done, total, "pictures")
    if not tally.total:
        raise EvaluationError(f"No picture can be measured. {describe_excluded(tally)}")
    return to_message(truth, tally, fp32 if reference else None)


def in_batches(items: Iterable[Labelled], size: int) -> Iterator[list[Labelled]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def accept(
    batch: Sequence[Labelled], classes: Classes, preprocessing: pb.Preprocessing, tally: Tally
) -> tuple[list[Result], list[Pixels]]:
    """Those that can be measured, without their answers, and their pixels, H×W×C.

    The others are added to the tally.
    """
    known, contents = [], []
    for item in batch:
        index = classes.find(item.label)
        result = Result(item.name, item.label, index)
        if index is None:
            tally.add(exclude(result, UNKNOWN_LABEL, classes.explain(item.label)))
            continue
        try:
            contents.append(read_picture(item.path))
        except OSError as error:
            tally.add(exclude(result, UNREADABLE, error.strerror or str(error)))
        else:
            known.append(result)
    accepted, pixels = [], []
    inputs = prepare(contents, preprocessing) if contents else []
    for result, prepared in zip(known, inputs, strict=True):
        if prepared is None:
            tally.add(exclude(result, REFUSED, "the gateway refuses it"))
        else:
            accepted.append(result)
            pixels.append(prepared)
    return accepted, pixels


def exclude(result: Result, reason: str, message: str) -> Result:
    return replace(result, excluded=reason, message=message)


def answer(
    runtime: Answer, pictures: Sequence[Result], pixels: Sequence[Pixels], max_batch_size: int
) -> list[Result]:
    results: list[Result] = []
    for start in range(0, len(pixels), max_batch_size):
        part = slice(start, start + max_batch_size)
        probabilities = runtime(np.stack(pixels[part]))
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
        scores = np.take_along_axis(probabilities, order, axis=1)
        results += [
            replace(picture, best=tuple(best), scores=tuple(best_scores))
            for picture, best, best_scores in zip(
                pictures[part], order.tolist(), scores.tolist(), strict=True
            )
        ]
    return results


def compare(
    references: Iterable[Result], candidates: Iterable[Result], comparison: pb.PairedComparison
) -> None:
    """Adds the pictures to the comparison."""
    for reference, candidate in zip(references, candidates, strict=True):
        comparison.top1_correct += reference.is_correct
        comparison.lost += reference.is_correct and not candidate.is_correct
        comparison.gained += candidate.is_correct and not reference.is_correct


def to_message(truth: Truth, tally: Tally, fp32: pb.PairedComparison | None) -> pb.Evaluation:
    if fp32:
        fp32.drop_upper_bound = Paired(tally.total, fp32.lost, fp32.gained).upper_bound
    return pb.Evaluation(
        data=shown_name(truth.source.absolute()),
        images=tally.total,
        excluded=tally.excluded.total(),
        top1_correct=tally.top1,
        top5_correct=tally.top5,
        calibration_error=tally.calibration_error,
        fp32=fp32,
    )


def describe_excluded(tally: Tally) -> str:
    """Such as "3 are left out, REFUSED: a/1.png: the gateway refuses it"."""
    return "; ".join(
        f"{images} are left out, {reason}: {tally.examples[reason][0]}"
        for reason, images in tally.excluded.most_common()
    )


# ------------------------------------------------------------------------------ judging


def judge_drop(evaluation: pb.Evaluation, max_drop: float | None) -> None:
    """`max_drop` in percentage points; None if nothing is asked for.

    Raises:
        EvaluationError: more than that is lost against fp32, or nobody can tell.
    """
    if max_drop is None:
        return
    allowed = max_drop / 100
    paired = Paired(evaluation.images, evaluation.fp32.lost, evaluation.fp32.gained)
    evaluation.fp32.max_drop = allowed
    if paired.is_below(allowed):
        return
    found = (
        f"of {paired.total} pictures {paired.lost} are right in fp32 only, and {paired.gained} the "
        f"other way round: {100 * paired.drop:.2f} points of top-1 are lost"
    )
    bound = f"up to {100 * paired.upper_bound:.2f} with a confidence of 95 %"
    missing = paired.missing(allowed)
    if paired.is_above(allowed):
        raise EvaluationError(f"Too much is lost, {max_drop:g} points are allowed: {found}.")
    if missing is None:
        raise EvaluationError(
            f"It cannot be shown that less than {max_drop:g} points are lost: {found}, {bound}. "
            f"No number of pictures like these would show it. {REMEDY}."
        )
    raise EvaluationError(
        f"Too few pictures to show that less than {max_drop:g} points are lost: {found}, {bound}. "
        f"{missing} more pictures like these are missing. {REMEDY}."
    )
