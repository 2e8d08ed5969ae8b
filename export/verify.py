"""`convoy verify`: the last rung of the ladder again, on the gateway that serves.

What the build proved on its own machine is asked of a live gateway: its golden images, and where
the repository is at hand, the version's ONNX file beside what is served of it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convoy.v1 import classifier_pb2 as pb
from export.bootstrap import require_packages
from export.errors import ExportError, ParityError, RepositoryError, ServedError

if TYPE_CHECKING:
    from convoy import Client


def verify(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="As the gateway knows it.")],
    version: Annotated[
        str, typer.Option(metavar="N", help="Of the model.", show_default="the default version")
    ] = "",
    server: Annotated[
        str,
        typer.Option(
            envvar="CONVOY_SERVER",
            metavar="HOST:PORT|URL",
            help="The gateway: gRPC, or an address that begins with http://.",
        ),
    ] = "localhost:8081",
    repository: Annotated[
        Path | None,
        typer.Option(
            envvar="CONVOY_REPOSITORY",
            file_okay=False,
            help="The model repository that it serves from.",
            show_default="the checkout's model_repository, else ./model_repository",
        ),
    ] = None,
) -> None:
    """Compare what a running gateway answers with what the build proved; exit code 1 if it differs.

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
            rungs = [golden_rung(client, model)]
            rungs += file_rung(client, model, repository or default_repository())
    except (ConvoyError, ExportError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from error
    print(f"{model.name} version {model.version}, manifest {model.manifest_digest[:12]}: as built")
    print_rungs(rungs)


def golden_rung(client: Client, model: pb.Model) -> pb.ParityRung:
    """
    Raises:
        ParityError: a golden image is answered otherwise than the build answered it.
    """
    rung = pb.ParityRung(name="build → served, golden images", top1_agreement=1, top5_agreement=1)
    for golden in model.golden_images:
        answer = client.classify(
            golden.content, model=model.name, version=model.version, top_k=len(model.labels)
        )
        found = {one.index: one for one in answer.classes}
        for expected in golden.expected:
            one = found[expected.index]
            difference = abs(one.score - expected.score)
            if one.label != expected.label or not difference <= golden.tolerance:
                raise ParityError(
                    f"Golden image {golden.name} of {model.name} version {model.version}: the "
                    f"build answered {expected.label!r} {expected.score:.4f}, the gateway answers "
                    f"{one.label!r} {one.score:.4f}; {golden.tolerance:g} is allowed."
                )
            if difference >= rung.largest_difference:
                rung.largest_difference, rung.worst_image = difference, golden.name
        rung.images += 1
        rung.tolerance = golden.tolerance
    rung.batch_sizes.append(1)
    return rung


def file_rung(client: Client, model: pb.Model, repository: Path) -> list[pb.ParityRung]:
    """The version's own ONNX file against the gateway; none for a plan, which needs its GPU.

    Raises:
        RepositoryError: the repository does not hold that version.
        ParityError, ServedError: it is not what is served.
    """
    from export.files import file_sha256
    from export.proof.parity import onnx_answer
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
            "serves: `convoy doctor` says more."
        )
    rung = served_rung(
        client,
        model,
        onnx_answer(path),
        f"ONNX {model.manifest.precision}",
        max_batch_size=max_batch_size(folder),
    )
    return [rung]
