"""`convoy verify`: the last rung of the ladder, on a gateway that serves.

A live gateway must answer what the build proved on its own machine: the golden images, and if the
repository is available, what the version's ONNX file answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from convoy.terminal import print_error, printable
from convoy.v1 import classifier_pb2 as pb
from export.bootstrap import require_packages
from export.cli_options import Repository, ServedModel, ServedVersion, Server
from export.errors import ExportError, ParityError, RepositoryError, ServedError

if TYPE_CHECKING:
    from convoy import Client


def verify(
    name: ServedModel,
    version: ServedVersion = "",
    server: Server = "localhost:8081",
    repository: Repository = None,
) -> None:
    """Compare a running gateway's answers with what the build proved; exit code 1 if they differ.

    Examples:

        convoy verify resnet152

        convoy verify resnet152 --version 3 --server gpu-7:8081 --repository /srv/models
    """
    from convoy import Client
    from convoy.errors import ConvoyError
    from export.console import print_rungs
    from export.repository.layout import default_repository

    require_packages()
    try:
        with Client(server, timeout_s=120) as client:
            model = client.model(name, version)
            rungs = [compare_golden_images(client, model)]
            rungs += compare_with_file(client, model, repository or default_repository())
    except (ConvoyError, ExportError) as error:
        print_error(error)
        raise typer.Exit(1) from error
    manifest = model.manifest_digest[:12]
    print(printable(f"{model.name} version {model.version}, manifest {manifest}: as built"))
    print_rungs(rungs)


def compare_golden_images(client: Client, model: pb.Model) -> pb.ParityRung:
    """The rung of the golden images.

    Raises:
        ParityError: the gateway's answer for a golden image differs from the build's.
    """
    rung = pb.ParityRung(name="build → served, golden images", top1_agreement=1, top5_agreement=1)
    for golden in model.golden_images:
        answer = client.classify(
            golden.content,
            model=model.name,
            version=model.version,
            top_k=len(model.labels),
            min_score=0,
        )
        classes = {served.index: served for served in answer.classes}
        for expected in golden.expected:
            served = classes[expected.index]
            difference = abs(served.score - expected.score)
            if served.label != expected.label or not difference <= golden.tolerance:
                raise ParityError(
                    f"Golden image {golden.name} of {model.name} version {model.version}: the "
                    f"build answered {expected.label!r} {expected.score:.4f}, the gateway answers "
                    f"{served.label!r} {served.score:.4f}; {golden.tolerance:g} is allowed."
                )
            if difference >= rung.largest_difference:
                rung.largest_difference, rung.worst_image = difference, golden.name
        rung.images += 1
        rung.tolerance = golden.tolerance
    rung.batch_sizes.append(1)
    return rung


def compare_with_file(client: Client, model: pb.Model, repository: Path) -> list[pb.ParityRung]:
    """The rung from the version's ONNX file to the gateway; none for a plan, which needs its GPU.

    Raises:
        RepositoryError: the repository does not hold that version.
        ParityError, ServedError: the gateway serves another file, or answers otherwise.
    """
    from export.files import file_sha256
    from export.proof.runtimes import onnx_runtime
    from export.proof.served import served_rung
    from export.repository.config import max_batch_size
    from export.repository.layout import MODEL_FILES

    if model.manifest.format == "plan":
        return []
    folder = repository / f"{model.name}.v{model.version}"
    path = folder / MODEL_FILES["onnx"]
    if not path.is_file():
        raise RepositoryError(
            f"There is no {path}: name the repository that the gateway serves from with "
            "--repository or CONVOY_REPOSITORY."
        )
    if file_sha256(path) != model.manifest.onnx_sha256:
        raise ServedError(
            f"{path} is not the file of manifest {model.manifest_digest[:12]}, which the gateway "
            "serves: see `convoy doctor`."
        )
    rung = served_rung(
        client,
        model,
        onnx_runtime(path),
        f"ONNX {model.manifest.precision}",
        max_batch_size=max_batch_size(folder),
    )
    return [rung]
