"""`convoy adopt`: from an ONNX file of your own to a folder of the model repository.

    convoy adopt flowers.onnx --labels flowers.txt --outputs logits --examples photos/

The file is wrapped in the contract's graph with its weights untouched (adoption/wrapper.py), proven
with itself fed by other code, and published as a build is (publication.py). How its pictures are
prepared is said, or found out by what another system answered (adoption/detective/). What is no
image classifier is refused by what it is, and nothing is assumed in silence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convoy.terminal import print_error, printable
from export import cli_options as cli
from export.adoption.detective.options import NO_REFERENCE, ReferenceOptions
from export.bootstrap import require_packages
from export.build_cache import Stages
from export.console import PublishedVersion
from export.errors import (
    BadName,
    CalibrationError,
    EvaluationError,
    ExportError,
    PreparationError,
)
from export.evaluation.gate import check_gate
from export.files import cache_path
from export.option_groups import with_groups
from export.options import Options, select_precision
from export.preparation.options import AS_PUBLISHED, PreparationOptions
from export.progress import Reporter
from export.publication import build_one, check_name, find_published, publish
from export.repository.layout import default_repository

if TYPE_CHECKING:
    from export.adoption.options import AdoptOptions

OnnxFile = Annotated[
    Path,
    typer.Argument(metavar="FILE.onnx", help="The classifier, with its external data beside it."),
]
Labels = Annotated[
    Path,
    typer.Option(
        "--labels",
        metavar="FILE",
        help="Its classes, in the order of its outputs: one label per line, CSV, TSV or JSON "
        "(docs/moving-in.md).",
    ),
]
Outputs = Annotated[
    str | None,
    typer.Option(
        "--outputs",
        metavar="logits|probabilities",
        help="What the file gives: logits, to which the activation is added, or probabilities, "
        "which are served as they are.",
        show_default="probabilities if it ends with softmax or sigmoid; else you must say",
    ),
]
Examples = Annotated[
    Path | None,
    typer.Option(
        "--examples",
        metavar="DIR",
        help="A few pictures of at least two classes. Golden images are made of them: a "
        "gateway serves the version if it answers them as the file does.",
        show_default="two sample photographs",
    ),
]
ModelName = Annotated[str | None, cli.name_option("the file's name")]
MaxBatch = Annotated[
    int | None,
    typer.Option(
        "--max-batch",
        min=1,
        max=1024,
        help="Maximum batch size.",
        show_default="8, or the one that the file fixes",
    ),
]
Fp16 = Annotated[
    bool,
    typer.Option(
        "--fp16",
        help="Half precision, made of the file's float32: half the size, faster on a GPU.",
    ),
]
Int8 = Annotated[
    bool,
    typer.Option(
        "--int8",
        help="8-bit integers, made of the file's float32 with the pictures of --calibration.",
    ),
]
Calibration = Annotated[Path | None, cli.calibration_option("the pictures of --examples")]


@dataclass(frozen=True)
class PrecisionOptions:
    """In place of the file's own precision."""

    fp16: Fp16 = False
    int8: Int8 = False
    calibration: Calibration = None
    max_drop: cli.MaxDrop = None

    def apply(self, options: AdoptOptions) -> AdoptOptions:
        """
        Raises:
            ExportError: the options do not belong together, or the file is in float32 no more.
        """
        from export.adoption.precision import decide_precision

        calibration = self.calibration or (options.examples_path if self.int8 else None)
        asked = select_precision(self.fp16, self.int8, calibration)
        check_gate(options.evaluate, self.max_drop, asked, options.format)
        precision = decide_precision(options.given, asked)
        return replace(
            options, precision=precision, calibration=calibration, max_drop=self.max_drop
        )


USAGE_ERRORS = (BadName, PreparationError, CalibrationError, EvaluationError)
OWN_PRECISION = PrecisionOptions()


@with_groups
def adopt(
    file: OnnxFile,
    labels: Labels,
    outputs: Outputs = None,
    activation: cli.ActivationName = Options.activation,
    examples: Examples = None,
    published_as: ModelName = None,
    max_batch: MaxBatch = None,
    evaluate: cli.Evaluate = None,
    repository: cli.Repository = None,
    keep: cli.Keep = None,
    triton: cli.Triton = None,
    force: cli.Force = False,
    preparation: PreparationOptions = AS_PUBLISHED,
    reference: ReferenceOptions = NO_REFERENCE,
    converted: PrecisionOptions = OWN_PRECISION,
) -> None:
    """Adopt an ONNX file of your own: prove that it is served as it answers itself, and publish it.

    The file takes pictures, N×3×H×W or N×H×W×3, float or uint8, and gives one score per class. Its
    weights are not touched. Say how its pictures were prepared in training, or give --predictions,
    which find it out; what nobody says is assumed, and reported.

    Examples:

        convoy adopt flowers.onnx --labels flowers.txt --outputs logits --examples photos/

        convoy adopt keras.onnx --labels classes.json --mean 0.5 --std 0.5 --resize-mode squash

        convoy adopt timm.onnx --labels labels.txt --outputs logits --preprocessing config.json

        convoy adopt old.onnx --labels labels.txt --examples photos/ --predictions answers.csv
    """
    require_packages()
    from export.adoption.decisions import decide
    from export.adoption.detective.investigation import find_preparation
    from export.adoption.examples import origin

    name = published_as or name_of(file)
    try:
        check_name(name)
        options = replace(
            decide(file, labels, outputs, activation, max_batch, preparation),
            repository=(repository or default_repository()).absolute(),
            published_as=name,
            examples_path=examples,
            evaluate=evaluate,
            keep=keep,
            triton=triton,
            force=force,
        )
        options = find_preparation(converted.apply(options), reference)
    except ExportError as error:
        print_error(error)
        raise typer.Exit(2 if isinstance(error, USAGE_ERRORS) else 1) from error
    result = build_one(run, options, "ONNX Runtime")
    if result.error:
        raise typer.Exit(1)
    print(printable(f"  {origin(options.examples)}"))


def name_of(file: Path) -> str:
    """The file's name as a model's: what no name can have becomes '-'."""
    return re.sub(r"[^a-z0-9_-]+", "-", file.stem.lower()).strip("-_")


def run(options: Options, reporter: Reporter, runtime: str) -> PublishedVersion:
    """All stages, in order.

    Raises:
        ExportError: a stage failed, and nothing was published.
    """
    from export.adoption.ladder import AdoptedLadder
    from export.adoption.options import AdoptOptions
    from export.checkpoints.labels import read_labels

    assert isinstance(options, AdoptOptions)
    assert options.labels
    options.check_pictures()  # fails at once if there are none
    if not options.force and (published := find_published(options)):
        return published
    labels = read_labels(options.labels)
    stages = Stages(cache_path() / "stages", rebuild=options.force)
    return publish(
        options, AdoptedLadder(options, labels, stages, reporter), labels, reporter, runtime
    )
