"""From a checkpoint to a folder of the model repository.

    python export/build.py lenet5
    python export/build.py resnet152 --fp16 --weights random
    python export/build.py resnet152 --int8 --calibration photos/
    python export/build.py resnet50 --weights flowers.pth --labels flowers.txt --name my-flowers

The story: climb the ladder from the weights to the file in its precision (ladder.py), choose golden
images, write the facts beside the model, compare the served answer with the file (served.py),
publish by one rename. A step that fails ends the build, and nothing is published.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run by its path, not imported
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from export.bootstrap import continue_in_venv

    continue_in_venv()

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from convoy.v1 import classifier_pb2 as pb
from export.bootstrap import require_packages
from export.build_cache import Stages, cache_path, file_sha256, package_versions
from export.catalog import CATALOG, Network, find
from export.checkpoints.download import PYTORCH_URL, Downloads, Received
from export.console import Bars, Built, Published, show, show_all
from export.errors import BadName, CalibrationError, EngineError, ExportError, UnknownNetwork
from export.options import Format, Options, Precision
from export.repository.layout import (
    MODEL_FILES,
    default_repository,
    facts_json,
    highest_published,
    labels_text,
    prune,
    read_facts,
    staging,
    write,
)

if TYPE_CHECKING:
    from export.proof.ladder import Ladder

MANIFEST_FILE, ENGINE_FILE = "manifest.json", "model.engine"


def build(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NETWORK…", help=f"Of {', '.join(CATALOG)}.", show_default=False),
    ] = None,
    build_all: Annotated[bool, typer.Option("--all", help="Every network of the catalog.")] = False,
    fp16: Annotated[
        bool,
        typer.Option(
            "--fp16", help="Half precision: half the size, faster on a GPU. Unless given: fp32."
        ),
    ] = False,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="8-bit integers, by the recipe of the target; needs --calibration.",
        ),
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="For --int8: a folder with some hundred pictures like those that will be served.",
        ),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="onnx|plan|rtx",
            help="An ONNX file, which runs everywhere; a TensorRT plan, for this kind of GPU; or a "
            "TensorRT-RTX engine, which is written aside and never published.",
            show_default="plan where a GPU and TensorRT are, else onnx",
        ),
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option(
            min=1, max=1024, help="Images at once, at most.", show_default="the network's"
        ),
    ] = None,
    opt_batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Images at once that an engine is fastest for.", show_default="--max-batch"
        ),
    ] = None,
    optimization_level: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=5,
            help="Of an engine: 0 is built fast, 5 runs fast.",
            show_default="TensorRT's own choice",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="imagenet|imagenet1k_v1|digits|random|FILE",
            help="Published weights, the best ones or those of the first version; those that "
            "export/train.py trained; seeded random ones (whose answers mean nothing); or the path "
            "of a .pth or .safetensors with a state dict. Published ones are downloaded once, into "
            "~/.cache/convoy/weights (XDG_CACHE_HOME).",
            show_default="imagenet for the ImageNet networks, digits for those trained here",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Classes of your own, for a fine-tuned FILE of weights: a label a line, in the "
            "order of the network's outputs; after a tab, its id.",
            show_default="the network's",
        ),
    ] = None,
    published_as: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="What the model is called, in small letters, digits, - and _.",
            show_default="the network's name",
        ),
    ] = None,
    weights_url: Annotated[
        str | None,
        typer.Option(
            envvar="CONVOY_WEIGHTS_URL",
            metavar="URL",
            help="Where published weights are downloaded from: a folder with the files by the "
            "names they have there.",
            show_default="PyTorch's server",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of random weights.")] = 0,
    repository: Annotated[
        Path | None,
        typer.Option(
            envvar="CONVOY_REPOSITORY",
            file_okay=False,
            help="The model repository to publish in.",
            show_default="the checkout's model_repository, else ./model_repository",
        ),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Delete what is older than this many versions once the new one is published.",
            show_default="all are kept",
        ),
    ] = None,
    triton: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="A Triton (gRPC) that serves this repository, to prove the served answer with "
            "before it is published. Without it: ONNX Runtime, and of a plan each gateway that "
            "loads it.",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option(file_okay=False, help="Where --format rtx writes NAME/.")
    ] = Path("build", "rtx"),
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Make everything anew, although the same build is published already."
        ),
    ] = False,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Rebuild the highest version in its place instead of adding one. For the networks "
            "that ship, until the first release; a server that has it loaded must be restarted.",
        ),
    ] = False,
) -> None:
    """Build networks: weights to a file that is served, proven, into the model repository.

    A running server picks the new version up by itself. What an earlier build has made already is
    taken from ~/.cache/convoy (XDG_CACHE_HOME).

    Examples:

        python export/build.py lenet5

        python export/build.py resnet152 --fp16 --weights random

        python export/build.py vgg16 resnet50 --fp16 --keep 2

        python export/build.py resnet152 --int8 --calibration photos/

        python export/build.py resnet152 --weights resnet152-f82ba261.pth --repository /srv/models

        python export/build.py resnet50 --weights flowers.pth --labels flowers.txt --name my-flowers
    """
    try:
        networks = chosen(names or [], build_all)
        for network in networks:
            check_name(network.name if published_as is None else published_as, network)
        if published_as is not None and len(networks) > 1:
            raise BadName(f"{len(networks)} networks cannot all be called {published_as}.")
    except (UnknownNetwork, BadName) as error:
        _fail(error, code=2)
    require_packages()
    try:
        precision = precision_of(fp16, int8, calibration)
        format_, runtime = runtime_of(format_, opt_batch, optimization_level)
    except ExportError as error:
        _fail(error, code=2)
    builds = [
        Options(
            network=network,
            precision=precision,
            weights=weights or network.weights,
            seed=seed,
            repository=(repository or default_repository()).absolute(),
            replace=replace,
            labels=labels,
            published_as=published_as,
            weights_url=weights_url,
            format=format_,
            calibration=calibration,
            max_batch=max_batch,
            opt_batch=opt_batch,
            optimization_level=optimization_level,
            keep=keep,
            force=force,
            triton=triton,
            output=output,
        )
        for network in networks
    ]
    built = [build_one(options, runtime) for options in builds]
    if len(built) > 1:
        show_all(built)
    raise typer.Exit(int(any(one.error for one in built)))


# ------------------------------------------------------------------------------ what was asked for


def chosen(names: Sequence[str], build_all: bool) -> list[Network]:
    """
    Raises:
        UnknownNetwork: the catalog has none of that name, or none was named.
    """
    if build_all:
        return list(CATALOG.values())
    if not names:
        raise UnknownNetwork(f"Name a network, or --all: there are {', '.join(CATALOG)}.")
    return [find(name) for name in dict.fromkeys(names)]


def check_name(name: str, network: Network) -> None:
    """Whether a model that this network makes can be called so.

    Raises:
        BadName: it cannot, or it is the name of another network.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise BadName(
            f"No model can be called {name!r}: take small letters, digits, - and _, and begin with "
            "a letter or a digit."
        )
    if name in CATALOG and name != network.name:
        raise BadName(f"{name} is another network than {network.name}: take another name.")


def precision_of(fp16: bool, int8: bool, calibration: Path | None) -> Precision:
    """
    Raises:
        CalibrationError: int8 has nothing to be calibrated on, or something else has.
    """
    if int8 and fp16:
        raise CalibrationError("Give --fp16 or --int8, not both.")
    if int8 and calibration is None:
        raise CalibrationError(
            "--int8 needs --calibration DIR, a folder with some hundred pictures like those that "
            "will be served: nothing is calibrated on noise."
        )
    if calibration and not int8:
        raise CalibrationError("--calibration is for --int8 alone: give both, or neither.")
    return "int8" if int8 else "fp16" if fp16 else "fp32"


def runtime_of(
    asked: str | None, opt_batch: int | None, optimization_level: int | None
) -> tuple[Format, str]:
    """What is built for, and the sentence that says why.

    Raises:
        EngineError: what is asked for cannot be built here.
    """
    from export.conversion.to_tensorrt import REMEDY, why_no_plan

    # Not `match`: this file is read by whatever Python a user has, which then tells what it lacks.
    if asked not in (None, "onnx", "plan", "rtx"):
        raise EngineError(f"--format is {asked!r}, must be onnx, plan or rtx.")
    if asked in (None, "onnx") and (opt_batch or optimization_level is not None):
        raise EngineError(
            "--opt-batch and --optimization-level are for engines: give --format plan or rtx "
            "with them."
        )
    if asked == "rtx":
        return "rtx", "TensorRT-RTX, as asked for"
    if asked == "onnx":
        return "onnx", "ONNX Runtime, as asked for"
    reason = why_no_plan()
    if asked == "plan" and reason:
        raise EngineError(f"No plan can be built here: {reason} {REMEDY}")
    if reason:
        return "onnx", f"ONNX Runtime, since {reason}"
    return "plan", "TensorRT, as asked for" if asked else "TensorRT, since it is here with a GPU"


# ------------------------------------------------------------------------------ one build


def build_one(options: Options, runtime: str) -> Built:
    """Builds, and shows what came of it; an error ends this network's build alone."""
    started_s = time.monotonic()
    published, failed = None, ""
    try:
        with Bars() as bars:
            step = bars.steps(options.name, steps_of(options))
            published = run(options, step, bars.received, bars.progress, runtime)
        show(published)
    except (ExportError, OSError) as error:  # of the disk, where no stage knows better
        failed = str(error)
        print(error, file=sys.stderr)
    seconds = time.monotonic() - started_s
    return Built(options.name, options.precision, seconds, published, failed)


def steps_of(options: Options) -> int:
    """Weights, golden images, served, publishing; export and parity once a rung."""
    rungs = 1 + (options.precision != "fp32") + (options.format != "onnx")
    return 4 + 2 * rungs


def run(
    options: Options,
    step: Callable[[str], None],
    received: Received | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    runtime: str = "",
) -> Published:
    """The stages in order; `step` is told the name of each, `received` how a download goes, and
    `progress` what else takes long.

    Raises:
        ExportError: a stage failed, and nothing was published.
    """
    from export.checkpoints.labels import read_labels
    from export.conversion.calibration import calibration_sha256

    if options.calibration:
        calibration_sha256(options.calibration)  # that there are no pictures is said at once
    network = options.network
    labels = read_labels(options.labels) if options.labels else network.labels()
    may_be_there = options.format != "rtx" and not (options.force or options.replace)
    if may_be_there and (there := already_published(options)):
        return there

    from export.proof.ladder import Ladder

    stages = Stages(cache_path() / "stages", anew=options.force)
    downloads = Downloads(options.weights_url or PYTORCH_URL, received=received)
    ladder = Ladder(options, labels, stages, downloads, step, progress)
    if options.format == "rtx":
        return write_aside(options, ladder, labels, runtime)
    with staging(options.repository, options.name, replace=options.replace) as staged:
        last, model = ladder.climb()
        step("Golden images")
        complete(model, options, labels)
        model.golden_images.extend(ladder.golden_images(last, model, labels))
        file = staged.folder / MODEL_FILES[model.manifest.format]
        shutil.copyfile(last.path, file)
        write(staged.folder, model, options.max_batch_size)
        step("The served answer")
        model.parity.extend(ladder.served(last, model, staged.folder))
        step("Publishing")
        write(staged.folder, model, options.max_batch_size)
        staged.publish()
    if options.keep:
        prune(options.repository, options.name, options.keep)
    return Published(staged.published, model, runtime)


def already_published(options: Options) -> Published | None:
    """The version that is served, if it came of the same build and its file is as it was."""
    folder = highest_published(options.repository, options.name)
    if folder is None or (model := read_facts(folder)) is None:
        return None
    manifest = model.manifest
    is_same = manifest.build_sha256 == options.sha256
    file = folder / MODEL_FILES.get(manifest.format, MODEL_FILES["onnx"])
    expected = manifest.engine.sha256 or manifest.onnx_sha256
    if not (is_same and file.is_file() and file_sha256(file) == expected):
        return None
    return Published(folder, model, was_there=True)


def complete(model: pb.Model, options: Options, labels: Sequence[pb.Label]) -> None:
    """The facts that no rung of the ladder knows."""
    model.input.CopyFrom(options.network.input)
    model.labels.extend(labels)
    manifest = model.manifest
    manifest.format = options.format
    manifest.labels_sha256 = hashlib.sha256(labels_text(labels).encode()).hexdigest()
    manifest.versions.update(package_versions())
    manifest.build_command = options.command
    manifest.build_sha256 = options.sha256


def write_aside(
    options: Options, ladder: Ladder, labels: Sequence[pb.Label], runtime: str
) -> Published:
    """An RTX engine and its manifest, outside the repository: Triton does not load it."""
    last, model = ladder.climb()
    complete(model, options, labels)
    folder = options.output / options.name
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(last.path, folder / ENGINE_FILE)
    manifest = facts_json(model)["manifest"]
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    (folder / MANIFEST_FILE).write_text(f"{text}\n", encoding="utf-8")
    return Published(folder, model, runtime)


def _fail(error: ExportError, code: int) -> NoReturn:
    print(error, file=sys.stderr)
    raise typer.Exit(code)


if __name__ == "__main__":
    typer.run(build)
