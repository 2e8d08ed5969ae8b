"""From a checkpoint to a folder of the model repository.

    python export/build.py lenet5
    python export/build.py resnet152 --fp16 --weights random
    python export/build.py resnet50 --weights flowers.pth --labels flowers.txt --name my-flowers

The story: load the weights, export the network to ONNX in its precision, compare each runtime with
the one before it, choose golden images, write the facts beside the model, publish by one rename. A
step that fails ends the build, and nothing is published.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run by its path, not imported
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from export.bootstrap import continue_in_venv

    continue_in_venv()

import hashlib
import re
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from convoy.v1 import classifier_pb2 as pb
from export.bootstrap import require_packages
from export.catalog import CATALOG, Network, find
from export.errors import BadName, ExportError, UnknownNetwork

if TYPE_CHECKING:
    from torch import nn

    from export.checkpoints import Loaded
    from export.download import Received
    from export.to_onnx import Precision

CHECKOUTS_REPOSITORY = Path(__file__).resolve().parents[1] / "model_repository"
# What made a version, for its manifest.
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Options:
    network: Network
    precision: Precision
    weights: str  # "imagenet", "imagenet1k_v1", "digits", "random" or the path of a file
    seed: int
    repository: Path
    replace: bool
    labels: Path | None = None  # of a user's own classes
    published_as: str | None = None  # a name other than the network's
    weights_url: str | None = None  # of published weights, where not PyTorch's own server

    @property
    def name(self) -> str:
        return self.published_as or self.network.name

    @property
    def command(self) -> str:
        """What makes the same version again; it names no path of this machine."""
        words = ["python", "export/build.py", self.network.name]
        words += ["--fp16"] if self.precision == "fp16" else []
        words += ["--weights", Path(self.weights).name]
        words += ["--seed", str(self.seed)] if self.weights == "random" else []
        words += ["--labels", self.labels.name] if self.labels else []
        words += ["--name", self.published_as] if self.published_as else []
        return shlex.join(words)


@dataclass(frozen=True)
class Published:
    folder: Path
    model: pb.Model


def build(
    name: Annotated[str, typer.Argument(help=f"The network: {', '.join(CATALOG)}.")],
    fp16: Annotated[
        bool,
        typer.Option(
            "--fp16", help="Half precision: half the size, faster on a GPU. Unless given: fp32."
        ),
    ] = False,
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
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Rebuild the highest version in its place instead of adding one. For the networks "
            "that ship, until the first release; a server that has it loaded must be restarted.",
        ),
    ] = False,
) -> None:
    """Build a network: weights to ONNX, proven, into the model repository.

    A running server picks the new version up by itself.

    Examples:

        python export/build.py lenet5

        python export/build.py resnet152 --fp16 --weights random

        python export/build.py resnet152 --weights resnet152-f82ba261.pth --repository /srv/models

        python export/build.py resnet50 --weights flowers.pth --labels flowers.txt --name my-flowers
    """
    try:
        network = find(name)
        check_name(name if published_as is None else published_as, network)
    except (UnknownNetwork, BadName) as error:
        _fail(error, code=2)
    require_packages()
    options = Options(
        network=network,
        precision="fp16" if fp16 else "fp32",
        weights=weights or network.weights,
        seed=seed,
        repository=(repository or default_repository()).absolute(),
        replace=replace,
        labels=labels,
        published_as=published_as,
        weights_url=weights_url,
    )
    try:
        with _progress() as progress:
            published = run(options, _steps(progress, options), _download(progress))
    except ExportError as error:
        _fail(error, code=1)
    print(report(published))


def default_repository() -> Path:
    return CHECKOUTS_REPOSITORY if CHECKOUTS_REPOSITORY.is_dir() else Path("model_repository")


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


def run(
    options: Options, step: Callable[[str], None], received: Received | None = None
) -> Published:
    """The stages in order; `step` is told the name of each, `received` how a download goes.

    Raises:
        ExportError: a stage failed, and nothing was published.
    """
    from export.checkpoints import load
    from export.download import PYTORCH_URL, Downloads
    from export.golden import golden_images
    from export.labels import read_labels
    from export.parity import onnx_answer
    from export.repository import staging, write

    network = options.network
    labels = read_labels(options.labels) if options.labels else network.labels()
    downloads = Downloads(options.weights_url or PYTORCH_URL, received=received)
    with staging(options.repository, options.name, replace=options.replace) as staged:
        step(f"Weights: {options.weights}")
        loaded = load(
            network, options.weights, options.seed, classes=len(labels), downloads=downloads
        )
        parity = climb(options, loaded.network, len(labels), staged.model_path, step)
        step("Golden images")
        model = pb.Model(
            input=network.input,
            preprocessing=loaded.preprocessing,
            labels=labels,
            manifest=manifest(options, loaded, labels, staged.model_path),
            parity=parity,
            golden_images=golden_images(
                network,
                loaded.preprocessing,
                labels,
                onnx_answer(staged.model_path),
                is_random=loaded.weights.source == "random",
            ),
        )
        step("Publishing")
        write(staged.folder, model, network.max_batch_size)
        staged.publish()
    return Published(staged.published, model)


def climb(
    options: Options, module: nn.Module, classes: int, model_path: Path, step: Callable[[str], None]
) -> list[pb.ParityRung]:
    """Writes the graph in its precision to `model_path`, and compares on the way there."""
    from export.parity import compare, onnx_answer, torch_answer
    from export.samples import PROOF_SEED, samples
    from export.to_onnx import Servable, to_onnx

    network = options.network
    images = samples(network, network.proof_images, PROOF_SEED)
    answer, name = torch_answer(Servable(module, network.mean, network.std, "fp32")), "PyTorch fp32"
    rungs = []
    with tempfile.TemporaryDirectory() as aside:
        for precision in precisions(options):
            last = precision == options.precision
            path = model_path if last else Path(aside, f"{precision}.onnx")
            step(f"Export: ONNX {precision}")
            servable = Servable(module, network.mean, network.std, precision)
            to_onnx(servable, network.size, classes, path)
            step(f"Parity: {name} → ONNX {precision}")
            candidate = onnx_answer(path)
            rungs.append(
                compare(
                    f"{name} → ONNX {precision}",
                    answer,
                    candidate,
                    images,
                    max_batch_size=network.max_batch_size,
                    tolerance=network.tolerances[precision],
                )
            )
            answer, name = candidate, f"ONNX {precision}"
    return rungs


def precisions(options: Options) -> list[Precision]:
    """Those that the ladder climbs through: fp32 always, so that the step from PyTorch is tight."""
    return ["fp32"] if options.precision == "fp32" else ["fp32", options.precision]


def manifest(
    options: Options, loaded: Loaded, labels: list[pb.Label], model_path: Path
) -> pb.Manifest:
    from export.describe import macs, parameters
    from export.repository import labels_text
    from export.to_onnx import OPSET

    network = options.network
    return pb.Manifest(
        network=network.name,
        paper=network.paper,
        weights=loaded.weights,
        precision=options.precision,
        onnx_sha256=hashlib.sha256(model_path.read_bytes()).hexdigest(),
        onnx_opset=OPSET,
        parameters=parameters(loaded.network),
        macs=macs(loaded.network, network.channels, network.size),
        labels_sha256=hashlib.sha256(labels_text(labels).encode()).hexdigest(),
        # Without the local part, such as "+cpu", which is the machine's.
        versions={package: version(package).partition("+")[0] for package in PACKAGES},
        build_command=options.command,
        accuracy=loaded.accuracy,
    )


# ------------------------------------------------------------------------------ what people see


def report(published: Published) -> str:
    manifest = published.model.manifest
    size_mb = (published.folder / "1" / "model.onnx").stat().st_size / 1e6
    lines = [f"{published.folder}: published, {manifest.precision}, {size_mb:.1f} MB"]
    lines += [
        f"  {rung.name}: largest difference {rung.largest_difference:.1e} of {rung.tolerance:g} "
        f"allowed, top-1 agrees for {rung.top1_agreement:.1%} and top-5 for "
        f"{rung.top5_agreement:.1%} of {rung.images} images; worst: {rung.worst_image}"
        for rung in published.model.parity
    ]
    lines += [
        f"  {measured.correct} of {measured.total} right "
        f"({measured.correct / measured.total:.1%}): {measured.measured}"
        for measured in manifest.accuracy
    ]
    if manifest.weights.source == "random":
        lines.append("  weights: random, so that no answer of this version means anything")
    else:
        lines.append(f"  weights: {manifest.weights.source} ({manifest.weights.file})")
    return "\n".join(lines)


def _progress() -> Progress:
    """On stderr, and for people alone; stdout is for the result."""
    console = Console(stderr=True)
    return Progress(
        SpinnerColumn(),
        BarColumn(bar_width=20),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _steps(progress: Progress, options: Options) -> Callable[[str], None]:
    # Weights, golden images, publishing; export and parity once a precision.
    task = progress.add_task("", total=3 + 2 * len(precisions(options)))
    begun = 0

    def step(description: str) -> None:
        nonlocal begun
        progress.update(task, description=description, completed=begun)
        begun += 1

    return step


def _download(progress: Progress) -> Received:
    """A bar of its own below the steps, from the first bytes on."""
    tasks: dict[str, TaskID] = {}

    def received(file: str, there: int, total: int | None) -> None:
        if file not in tasks:
            tasks[file] = progress.add_task(file)
        size = f"{there / 1e6:.1f} MB" + (f" of {total / 1e6:.1f}" if total else "")
        progress.update(tasks[file], description=f"{file}: {size}", completed=there, total=total)

    return received


def _fail(error: ExportError, code: int) -> NoReturn:
    print(error, file=sys.stderr)
    raise typer.Exit(code)


if __name__ == "__main__":
    typer.run(build)
