"""`convoy build`: from a checkpoint to a folder of the model repository.

    python export/build.py lenet5
    python export/build.py resnet50 --weights flowers.pth --labels flowers.txt --name my-flowers

The steps: build and compare each rung of the ladder, from the weights to the file in its precision
(proof/ladder.py), choose golden images, write the facts beside the model, compare the served answer
with the file (proof/served.py), publish with one rename. A step that fails ends the build, and
nothing is published.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run by its path, not imported
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from export.bootstrap import continue_in_venv

    continue_in_venv()

from collections.abc import Sequence

import typer

from convoy.process import command_process
from convoy.terminal import print_error
from export import cli_options as cli
from export.bootstrap import require_packages
from export.build_cache import Stages
from export.catalog import CATALOG, Activation, Network, find
from export.checkpoints.download import PYTORCH_URL, Downloads
from export.console import PublishedVersion, print_results
from export.errors import (
    BadName,
    CheckpointError,
    EngineError,
    ExportError,
    UnknownNetwork,
)
from export.evaluation.gate import check_gate
from export.files import cache_path
from export.option_groups import with_groups
from export.options import NOTHING_TYPED, Format, Options, TypedOptions, select_precision
from export.preparation.options import AS_PUBLISHED, PreparationOptions
from export.progress import SILENT, Reporter
from export.publication import build_one, check_name, find_published, publish, write_aside
from export.repository.config import known_weights
from export.repository.layout import default_repository, highest_published


@with_groups
def build(
    names: cli.Networks = None,
    build_all: cli.All = False,
    fp16: cli.Fp16 = False,
    int8: cli.Int8 = False,
    format_: cli.FormatName = None,
    weights: cli.WeightsSource = None,
    activation_name: cli.ActivationName = Options.activation,
    repository: cli.Repository = None,
    seed: cli.Seed = 0,
    typed: TypedOptions = NOTHING_TYPED,
    preparation: PreparationOptions = AS_PUBLISHED,
) -> None:
    """Build networks: from weights to a proven version in the model repository.

    A running server loads the new version by itself. Unchanged stages come from ~/.cache/convoy.

    Examples:

        python export/build.py lenet5

        python export/build.py resnet152 --fp16 --weights random

        python export/build.py resnet152 --int8 --calibration photos/

        python export/build.py resnet50 --weights flowers.pth --labels flowers.txt --name my-flowers
    """
    try:
        networks = select_networks(names or [], build_all, typed.published_as)
        networks = [preparation.given.prepare(network) for network in networks]
        require_packages()
        precision = select_precision(fp16, int8, typed.calibration)
        activation = select_activation(activation_name)
        format_, runtime = select_runtime(format_, typed.opt_batch, typed.optimization_level)
        check_gate(typed.evaluate, typed.max_drop, precision, format_)
    except ExportError as error:
        print_error(error)
        raise typer.Exit(2) from error
    builds = [
        Options(
            network=network,
            precision=precision,
            weights=weights or network.weights,
            seed=seed,
            repository=(repository or default_repository()).absolute(),
            activation=activation,
            format=format_,
            preparation=preparation,
            **vars(typed),
        )
        for network in networks
    ]
    results = [build_one(run, options, runtime) for options in builds]
    print_results(results)
    raise typer.Exit(int(any(result.error for result in results)))


# ------------------------------------------------------------------------------ usage


def select_networks(
    names: Sequence[str], build_all: bool, published_as: str | None
) -> list[Network]:
    """The networks to build, each once.

    Raises:
        UnknownNetwork: the catalog has none of that name, or none was named.
        BadName: they cannot be published under that name.
    """
    if not names and not build_all:
        raise UnknownNetwork(f"Name a network, or --all: there are {', '.join(CATALOG)}.")
    networks = [find(name) for name in (CATALOG if build_all else dict.fromkeys(names))]
    for network in networks:
        check_name(network.name if published_as is None else published_as, network.name)
    if published_as is not None and len(networks) > 1:
        raise BadName(f"{len(networks)} networks cannot share the name {published_as}.")
    return networks


def select_activation(name: str) -> Activation:
    """
    Raises:
        CheckpointError: there is none of that name.
    """
    if name == "softmax":
        return "softmax"
    if name == "sigmoid":
        return "sigmoid"
    raise CheckpointError(f"--activation is {name!r}, must be softmax or sigmoid.")


def select_runtime(
    name: str | None, opt_batch: int | None, optimization_level: int | None
) -> tuple[Format, str]:
    """The format to build, and the reason as people read it.

    Raises:
        EngineError: that format cannot be built here.
    """
    from export.conversion.tensorrt_library import REMEDY, explain_missing_plan_support

    # No `match`: any Python that a user has must be able to parse this file, to say what it lacks.
    if name not in (None, "onnx", "plan", "rtx"):
        raise EngineError(f"--format is {name!r}, must be onnx, plan or rtx.")
    if name in (None, "onnx") and (opt_batch or optimization_level is not None):
        raise EngineError(
            "--opt-batch and --optimization-level are for engines: give --format plan or rtx "
            "with them."
        )
    if name == "rtx":
        return "rtx", "TensorRT-RTX, as requested"
    if name == "onnx":
        return "onnx", "ONNX Runtime, as requested"
    reason = explain_missing_plan_support()
    if name == "plan" and reason:
        raise EngineError(f"No plan can be built here: {reason} {REMEDY}")
    if reason:
        return "onnx", f"ONNX Runtime, since {reason}"
    return "plan", "TensorRT, as requested" if name else "TensorRT, since it and a GPU are here"


# ------------------------------------------------------------------------------ one build


def run(options: Options, reporter: Reporter = SILENT, runtime: str = "") -> PublishedVersion:
    """All stages, in order. `runtime` is what is reported as the reason for the format.

    Raises:
        ExportError: a stage failed, and nothing was published.
    """
    from export.checkpoints.labels import read_labels

    labels = read_labels(options.labels) if options.labels else options.network.labels()
    options.check_pictures()  # fails at once if there are none
    may_reuse = options.format != "rtx" and not (options.force or options.replace)
    if may_reuse and (published := find_published(options)):
        return published

    from export.proof.ladder import Ladder

    stages = Stages(cache_path() / "stages", rebuild=options.force)
    known = known_weights(highest_published(options.repository, options.name))
    downloads = Downloads(options.weights_url or PYTORCH_URL, known=known, reporter=reporter)
    ladder = Ladder(options, labels, stages, downloads, reporter)
    if options.format == "rtx":
        return write_aside(options, ladder, labels, runtime)
    return publish(options, ladder, labels, reporter, runtime)


if __name__ == "__main__":
    with command_process():
        typer.run(build)
