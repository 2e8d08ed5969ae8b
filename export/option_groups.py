"""Options of a command that come together are the fields of a dataclass, its parameter one object.

    @with_groups
    def build(names: Names, preparation: PreparationOptions = AS_PUBLISHED) -> None:

has the options of PreparationOptions in its place.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

Parameter = inspect.Parameter


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Gives typer the options one by one, and the command its groups of them."""
    signature = inspect.signature(command, eval_str=True)  # typer evaluates no text in ours
    parameters = signature.parameters.values()
    groups: dict[str, Any] = {
        it.name: it.annotation for it in parameters if is_dataclass(it.annotation)
    }

    @functools.wraps(command)
    def wrapper(**arguments: Any) -> None:
        for name, group in groups.items():
            typed = {field.name: arguments.pop(field.name) for field in fields(group)}
            arguments[name] = group(**typed)
        command(**arguments)

    spread = [one for it in parameters for one in _options(it, groups)]
    wrapper.__signature__ = signature.replace(parameters=spread)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {it.name: it.annotation for it in spread}
    return wrapper


def _options(parameter: Parameter, groups: dict[str, Any]) -> Iterator[Parameter]:
    if parameter.name not in groups:
        yield parameter
        return
    group = groups[parameter.name]
    types = get_type_hints(group, include_extras=True)
    for field in fields(group):
        name = field.name
        yield Parameter(name, Parameter.KEYWORD_ONLY, default=field.default, annotation=types[name])
