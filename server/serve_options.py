"""The flags of `convoy serve`, made from the settings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from server.settings import Settings, Shown
from server.settings_sources import flag_name

HELP = """\
Serve a model repository over gRPC and HTTP.

Without options: the models of this checkout, on this machine. Each option can also be set by a
variable such as CONVOY_HTTP_ADDRESS, or in the file of --config.

Examples:

    convoy serve

    convoy serve --models lenet5,resnet152 --keep-loaded 2

    convoy serve --triton triton:8001 --http-address 0.0.0.0:8080 --api-keys keys.toml
"""
NEGATION = "no_"  # --no-show-config overrides a variable or the file


def parse_flags(arguments: Sequence[str]) -> dict[str, str | bool]:
    """The flags that were given, by the name of the setting; the settings check their values.

    Raises:
        SystemExit: --help was printed, or a flag is unknown.
    """
    parsed: list[dict[str, str | bool]] = []

    def command(**flags: str | bool | None) -> None:
        parsed.append(
            {
                name.removeprefix(NEGATION): False if name.startswith(NEGATION) else value
                for name, value in flags.items()
                if value is not None
            }
        )

    parameters = [
        parameter for field in Settings.model_fields.items() for parameter in to_parameters(*field)
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    app.command(help=HELP)(command)
    try:
        app(arguments, prog_name="convoy serve")
    except SystemExit:
        if not parsed:
            raise
    return parsed[0]


def to_parameters(name: str, field: FieldInfo) -> Iterator[inspect.Parameter]:
    """As Typer reads them. Without a flag its value is None, whatever the setting's default is."""
    shown = next((entry for entry in field.metadata if isinstance(entry, Shown)), Shown())
    is_switch = field.annotation is bool
    option = typer.Option(
        flag_name(name),
        help=f"{field.description} {default_text(shown.default or field.default)}".strip(),
        metavar=shown.metavar or "|".join(choices(field)) or None,
        show_default=False,
        hidden=shown.is_hidden,
    )
    yield to_parameter(name, Annotated[(bool if is_switch else str) | None, option])
    if is_switch:
        negation = typer.Option(flag_name(NEGATION + name), hidden=True)
        yield to_parameter(NEGATION + name, Annotated[bool | None, negation])


def to_parameter(name: str, annotation: Any) -> inspect.Parameter:
    keyword_only = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword_only, default=None, annotation=annotation)


def choices(field: FieldInfo) -> tuple[Any, ...]:
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def default_text(default: object) -> str:
    is_shown = default is not True and default not in (None, False, [])
    return f"[default: {default}]" if is_shown else ""
