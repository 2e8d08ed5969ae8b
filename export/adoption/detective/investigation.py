"""From a reference system's answers to the preparation with which a file gives the same."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

from convoy.v1 import classifier_pb2 as pb
from export.adoption.decisions import network_of
from export.adoption.detective.findings import Findings, judge
from export.adoption.detective.options import ReferenceOptions
from export.adoption.detective.predictions import read_predictions
from export.adoption.detective.recipes import Space
from export.adoption.detective.reference import Reference, read_reference
from export.adoption.detective.report import (
    difference,
    explain_misfit,
    print_findings,
    to_options,
)
from export.adoption.detective.search import search
from export.adoption.detective.time_limit import TimeLimit
from export.adoption.detective.trials import Subject, Trials
from export.adoption.options import AdoptOptions
from export.checkpoints.labels import read_labels
from export.console import ProgressBars
from export.errors import AdoptionError
from export.evaluation.truth import Classes
from export.progress import Reporter

STEPS = 2
SEARCH_PICTURES = 8  # with scores; labels say less
SEARCH_LABELLED_PICTURES = 32
SEARCH_SHARE = 0.7  # of the time; in the rest it makes sure of what it has found


def find_preparation(options: AdoptOptions, reference: ReferenceOptions) -> AdoptOptions:
    """As if the preparation that was found had been typed; the findings are printed.

    Raises:
        ExportError: the reference's answers cannot be used, or nothing brings them back.
    """
    if not reference.predictions:
        return options
    start_s = time.monotonic()
    answers = read(options, reference.predictions)
    with ProgressBars(options.name, STEPS) as bars:
        findings = investigate(options, answers, bars, 60 * reference.search_minutes)
    print_findings(findings, answers, time.monotonic() - start_s)
    check(findings, answers, options.given.file.name)
    preparation = to_options(findings.best)
    network = network_of(options.given, preparation)
    origin = pb.PreparationOrigin(
        source="found",
        file=reference.predictions.name,
        images=len(answers),
        assumed=findings.assumed,
    )
    return replace(options, preparation=preparation, network=network, found=origin)


def read(options: AdoptOptions, predictions: Path) -> Reference:
    """
    Raises:
        ExportError: the predictions or the pictures cannot be used.
    """
    given = options.given
    assert options.labels
    classes = Classes(read_labels(options.labels))
    answered = read_predictions(predictions, classes, given.classes)
    if options.examples_path is None:
        raise AdoptionError(
            f"{predictions} has answers to pictures: give --examples DIR, with these pictures."
        )
    if not answered.has_scores and given.classes == 1:
        raise AdoptionError(f"{predictions} has labels, and of one class: it must have scores.")
    return read_reference(options.examples_path, answered, given.classes, options.activation)


def investigate(
    options: AdoptOptions, reference: Reference, reporter: Reporter, limit_s: float
) -> Findings:
    """Takes at most so long, and then as long as it takes to try two settings.

    Raises:
        ExportError: the file fails.
    """
    space = space_of(options)
    subject = Subject(options)
    most = SEARCH_PICTURES if reference.scores is not None else SEARCH_LABELLED_PICTURES
    limit = TimeLimit(limit_s, reporter)
    quick = Trials(subject, reference.spread(most), reporter, limit)
    reporter.step("How its pictures were prepared")
    limit.begin_part(SEARCH_SHARE)
    unfinished = search(quick, space)
    reporter.step("How sure that is")
    return judge(quick, Trials(subject, reference, reporter, limit), space, limit, unfinished)


def space_of(options: AdoptOptions) -> Space:
    """What is left to search after what was said."""
    said, size = options.preparation.given, options.given.size
    if said.crop_fraction is not None:
        said = replace(
            said,
            crop_fraction=None,
            crop=None,
            resize=said.resize or math.floor(size / said.crop_fraction),
        )
    return Space(size, replace(said, file=""), is_normalised=not options.given.takes_pixels)


def check(findings: Findings, reference: Reference, name: str) -> None:
    """
    Raises:
        AdoptionError: nothing fits, or what fits answers differently.
    """
    if not findings.fits:
        raise AdoptionError(f"{name} is not adopted: {explain_misfit(findings, reference)}")
    if findings.is_ambiguous:
        other = findings.alike[0]
        raise AdoptionError(
            f"{name} is not adopted: {len(findings.alike) + 1} settings fit these "
            f"{len(reference)} pictures, and their scores differ by up to {findings.spread:.2g} on "
            f"average, so that choosing one would be a guess (another one: "
            f"{difference(other, findings.best)}). Give scores in place of labels, more pictures "
            "that the reference was less sure of, or say one by the options of preparation."
        )
