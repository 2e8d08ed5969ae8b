"""The `convoy` command: the client's commands, and those of other installed distributions.

A distribution adds its own with entry points of the group `convoy.commands`: a function, which is
the command of that name, or a Typer app with several commands. Results go to stdout, everything
else to stderr. Exit codes: 0 success, 1 failure, 2 wrong usage.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf import json_format

from convoy.client import DEFAULT_SERVER, DEFAULT_TIMEOUT_S, Classification, Client
from convoy.errors import ConvoyError
from convoy.evidence import Unfamiliar
from convoy.process import command_process
from convoy.terminal import print_error, printable
from convoy.v1 import classifier_pb2 as pb

app = typer.Typer(
    help="Classify images with convolutional networks, and serve them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

Server = Annotated[
    str,
    typer.Option(
        envvar="CONVOY_SERVER",
        help="The gateway: HOST:PORT for gRPC, http://HOST:PORT for HTTP; grpcs:// and https:// "
        "for the same over TLS, with the authorities in the file CONVOY_CA. CONVOY_API_KEY is the "
        "API key.",
    ),
]
TimeoutS = Annotated[
    float, typer.Option("--timeout", min=0.001, help="Seconds to wait for an answer.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command()
def classify(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    model: Annotated[str, typer.Option(help="Name of the model; `convoy models` lists them.")],
    version: Annotated[str, typer.Option(help="Its version; unless given, the default one.")] = "",
    top_k: Annotated[int, typer.Option(min=1, help="Number of classes to show.")] = 5,
    heatmap: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.png",
            help="Write where the evidence for each of the best classes is in the image (one "
            "image).",
            show_default=False,
        ),
    ] = None,
    server: Server = DEFAULT_SERVER,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Classify images with a running gateway.

    Examples:

        convoy classify digit.png --model lenet5

        convoy classify *.jpg --model resnet152 --server http://localhost:8080 --json

        convoy classify photo.jpg --model resnet152 --heatmap overlay.png
    """
    if heatmap and len(images) > 1:
        raise typer.BadParameter("give one image with it", param_hint="--heatmap")
    include = ("INPUT", "HEATMAP") if heatmap else ()
    failed = False
    try:
        client = Client(server, timeout_s=timeout_s)
    except ConvoyError as error:
        print_error(f"convoy: {server}: {error}")
        raise typer.Exit(1) from error
    with client:
        for path in images:
            try:
                answer = client.classify(
                    path, model=model, version=version, top_k=top_k, include=include
                )
            except ConvoyError as error:
                failed = True
                print_error(f"convoy: {path}: {error}")
            else:
                show(path, answer, as_json)
                if heatmap:
                    write_heatmap(heatmap, path, answer)
    raise typer.Exit(1 if failed else 0)


@app.command()
def models(
    server: Server = DEFAULT_SERVER,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """List what a running gateway serves."""
    try:
        with Client(server, timeout_s=timeout_s) as client:
            served = client.models()
    except ConvoyError as error:
        print_error(f"convoy: {server}: {error}")
        raise typer.Exit(1) from error
    if as_json:
        print(
            json_format.MessageToJson(
                pb.ListModelsResponse(models=served), preserving_proto_field_name=True
            )
        )
    else:
        print_table(served)


def show(path: Path, answer: Classification, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"image": str(path), **to_json(answer)}))
        return
    build = f"{answer.model} v{answer.version}, {answer.precision}, weights {answer.weights}"
    print(printable(f"{path}: {build}"))
    for class_ in answer.classes:
        print(f"  {class_.score:7.2%}  {printable(class_.label)}")
    if not answer.classes:
        print("  no class reaches its threshold")
    if answer.unfamiliar is not None:
        print(f"  {render_unfamiliar(answer.unfamiliar)}")
    if answer.weights == "random":
        print_error("convoy: the weights are random: the answer is meaningless")


def render_unfamiliar(unfamiliar: Unfamiliar) -> str:
    text = f"unfamiliar: {unfamiliar.score:.3f}"
    if unfamiliar.threshold is None:
        return text
    if unfamiliar.score < unfamiliar.threshold:
        return f"{text}, below the threshold of {unfamiliar.threshold:.3f}"
    return f"{text}, doubt the classes from {unfamiliar.threshold:.3f} on"


def to_json(answer: Classification) -> dict[str, Any]:
    """Without arrays, which the command asks for only to draw them."""
    plain = replace(answer, input=None, heatmap=None, features=None, layers=None)
    return {name: value for name, value in asdict(plain).items() if value is not None}


def write_heatmap(path: Path, image: Path, answer: Classification) -> None:
    """
    Raises:
        Exit: a package is missing, or the file cannot be written.
    """
    try:
        from convoy.overlay import draw_overlay

        draw_overlay(image.read_bytes(), answer).save(path, "PNG")
    except (ImportError, OSError) as error:
        print_error(f"convoy: {path}: {error}")
        raise typer.Exit(1) from error


def print_table(models: list[pb.Model]) -> None:
    from convoy.tables import PlainTable, plain_console

    table = PlainTable(
        "model", "version", "state", "precision", "weights", "parameters", "manifest"
    )
    for model in models:
        state = pb.State.Name(model.state).removeprefix("STATE_").lower()
        table.add_row(
            model.name,
            model.version + (" (default)" if model.is_default else ""),
            f"{state}: {model.state_reason}" if model.state_reason else state,
            model.manifest.precision,
            model.manifest.weights.source,
            f"{model.manifest.parameters:,.0f}",
            model.manifest_digest[:12],
        )
    plain_console().print(table)


def entries_for(command: str) -> list[EntryPoint]:
    """The entry point of a command alone, since each imports much; all where there is none."""
    if command in (classify.__name__, models.__name__):
        return []
    entries = sorted(entry_points(group="convoy.commands"), key=lambda entry: entry.name)
    return [entry for entry in entries if entry.name == command] or entries


def add_commands(command: str) -> None:
    """Adds the command of another distribution to the app, or all of them (`entries_for`)."""
    for entry in entries_for(command):
        loaded = entry.load()
        if isinstance(loaded, typer.Typer):
            app.add_typer(loaded)
        else:
            app.command(entry.name)(loaded)


def main() -> None:
    add_commands(sys.argv[1] if sys.argv[1:] else "")
    with command_process():
        app()


if __name__ == "__main__":
    main()
